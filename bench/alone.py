"""Run a module of the benchmark in a process of its own, so that nothing of the last one is in its memory."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def run_alone(module: str, *arguments: str, variables: Mapping[str, str], document: Any = None) -> Any:
    """Return the JSON that `python -m module` prints; raise RuntimeError if it fails.

    It gets the `document` as JSON at its standard input, and `variables` in its environment.
    """
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=json.dumps(document),
        env=os.environ | dict(variables),
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"{' '.join([module, *arguments])} failed: {finished.stderr.strip()[-500:]}")
    return json.loads(finished.stdout)
