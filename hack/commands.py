"""Run a program to its end, and fail with what it said."""

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hack.errors import CommandError


def run(
    *command: str | Path,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run `command` and return what it writes to its standard output.

    Raises CommandError with its last words if it fails, or if there is no such program.
    """
    try:
        result = subprocess.run(
            command,
            input=stdin,
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CommandError(f"{command[0]} is not installed") from None
    if result.returncode:
        said = (result.stderr.strip() or result.stdout.strip())[-3000:]
        raise CommandError(f"'{shlex.join(map(str, command))}' failed: {said}")
    return result.stdout


def succeeds(*command: str | Path) -> bool:
    """Whether `command` exists and ends with status 0. Its output is discarded."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
