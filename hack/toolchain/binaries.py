"""Pinned programs: found on the PATH, found in the cache, or built now."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from hack.errors import CannotBuildError
from hack.locks import locked
from hack.progress import Write, step, to_stderr
from hack.toolchain.catalogue import CATALOGUE, Binary
from hack.toolchain.go_toolchain import find_go


def binary_path(name: str, write: Write = to_stderr) -> Path:
    """Path of the program `name`. A build that is needed is reported to `write` in one line.

    Raises CannotBuildError for an unknown name, without a Go, and when the build fails.
    """
    if name not in CATALOGUE:
        raise CannotBuildError(f"no binary is called {name!r}; there are {', '.join(CATALOGUE)}")
    binary = CATALOGUE[name]
    on_path = shutil.which(name)
    if binary.version_arguments is not None and on_path is not None and has_version(on_path, binary):
        return Path(on_path)
    # Only the lock is shared between processes: who waited finds the binary built.
    if not binary.built.exists():
        with locked(binary.built.parent):
            if not binary.built.exists():
                _build(binary, write)
    return binary.built


@cache  # asked before each run of kubectl
def has_version(program: str | Path, binary: Binary) -> bool:
    """Whether `program` reports exactly the pinned version; True if `binary` never reports one."""
    if binary.version_arguments is None:
        return True
    try:
        result = subprocess.run(
            [program, *binary.version_arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return binary.says_its_version(result.stdout)


def _build(binary: Binary, write: Write) -> None:
    title = f"{binary.name} {binary.version}"
    go = find_go(binary.folder)
    binary.built.parent.mkdir(parents=True, exist_ok=True)
    partial = binary.built.with_suffix(".partial")
    command: list[str | Path] = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
    command += ["-ldflags", binary.linker_flags(), "-o", partial, binary.package]
    with step(f"{title}: building from Go modules", write):
        result = subprocess.run(
            command,
            cwd=binary.folder,
            # Static, so that a cached binary survives an upgrade of the machine's C library.
            env={**os.environ, "CGO_ENABLED": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if result.returncode:
        raise CannotBuildError(f"{title} does not build with {go}:\n{result.stdout.strip()[-4000:]}")
    if not has_version(partial, binary):
        raise CannotBuildError(f"{title} was built but does not report that version; see {partial}")
    partial.replace(binary.built)
