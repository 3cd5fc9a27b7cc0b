"""Root file systems of Debian bookworm, one per set of packages, from the machine's own mirror."""

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hack.commands import run
from hack.errors import CommandError, MissingError
from hack.locks import locked
from hack.paths import CACHE
from hack.progress import step

SUITE: Final = "bookworm"
_SOURCES: Final = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
# Of no use in a container.
_DISPENSABLE: Final = (
    "var/cache/apt",
    "var/lib/apt/lists",
    *(f"usr/share/{name}" for name in ("doc", "man", "locale", "info")),
)


def root_file_system(packages: Sequence[str]) -> Path:
    """Folder with a minimal Debian and `packages`. It is shared: copy it before you change anything.

    Raises MissingError if this user or machine cannot make one.
    """
    listed = ",".join(sorted(packages))
    folder = CACHE / f"{SUITE}-{hashlib.sha256(listed.encode()).hexdigest()[:8]}"
    with locked(folder):
        if not folder.exists():
            if os.geteuid() != 0:
                raise MissingError("images are built by root here: run the same command as root")
            require("debootstrap")
            with step(f"Debian {SUITE} with {len(packages)} packages"):
                _bootstrap(folder, listed)
    return folder


def require(program: str) -> None:
    """Install `program` if it is missing, from the Debian package of the same name.

    Raises MissingError if it is missing and this user is not root or the system not Debian.
    """
    if shutil.which(program) is not None:
        return
    if os.geteuid() != 0:
        raise MissingError(f"{program} is missing: install it, or run the same command as root")
    if shutil.which("apt-get") is None:
        raise MissingError(f"{program} is missing: install it with this system's package manager")
    install = ("apt-get", "install", "--yes", "--no-install-recommends", program)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step(f"Debian's {program}"):
        try:
            run(*install, environment=environment)
        except CommandError:
            # Lists of packages that are missing or out of date.
            run("apt-get", "update")
            run(*install, environment=environment)


def _bootstrap(folder: Path, packages: str) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    run("debootstrap", "--variant=minbase", f"--include={packages}", SUITE, partial, *_mirror())
    for name in _DISPENSABLE:
        shutil.rmtree(partial / name, ignore_errors=True)
        (partial / name).mkdir()
    partial.rename(folder)


def _mirror() -> list[str]:
    """Address of the mirror that this machine's apt uses; empty on a system that is not Debian."""
    for path in _SOURCES:
        if path.exists():
            found = re.search(
                r"^(?:URIs:|deb (?:\[.*?\] )?)\s*(\S+/debian/?)(?:\s|$)", path.read_text(), re.MULTILINE
            )
            if found is not None:
                return [found[1]]
    return []
