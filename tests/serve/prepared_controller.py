"""Scripts that start a Ray of their own, whose controller of Serve is prepared as on a cluster."""

import os
import subprocess
import sys


def lines_of(script, *arguments, start, seconds, variables=None):
    """Run the script, and return the lines that it prints and that begin with `start`, and how it ended.

    It is in a process of its own, because the controller reads the setting when Ray starts. Ray writes about
    tasks and workers to the same output.
    """
    prepared = {"RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH": "serve_app.recovery.prepare"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, **prepared, **(variables or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return [line for line in done.stdout.splitlines() if line.startswith(start)], done
