"""Programs out of Debian packages, unpacked into the cache: nothing is installed, no service is started."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hack.commands import run
from hack.errors import CommandError, MissingError
from hack.locks import locked
from hack.paths import BINARIES
from hack.progress import Write, step, to_stderr

# The package of each program, and the program's path in it. The machine's Debian decides the version.
PACKAGES: Final = {"promtool": ("prometheus", "usr/bin/promtool")}


def debian_program(name: str, write: Write = to_stderr) -> Path:
    """Path of the program `name`: the one on the PATH, in the cache, or out of its package, fetched now.

    Raises MissingError on a system without apt, and where apt does not fetch the package.
    """
    on_path = shutil.which(name)
    if on_path is not None:
        return Path(on_path)
    package, member = PACKAGES[name]
    program = BINARIES / f"{name}-{package}-of-debian" / name
    with locked(program.parent):
        if not program.exists():
            if shutil.which("apt-get") is None:
                raise MissingError(f"{name} is missing: install it; on Debian the package {package} has it")
            with step(f"{name} out of Debian's package {package}", write), TemporaryDirectory() as folder:
                archive = _fetch(package, Path(folder))
                run("dpkg-deb", "--extract", archive, folder)
                _keep(Path(folder, member), program)
    return program


def _fetch(package: str, folder: Path) -> Path:
    """Download a package and return its file."""
    # The user _apt, who would download else, may not write to the folder.
    download = ("apt-get", "download", "--option=APT::Sandbox::User=root", package)
    try:
        run(*download, folder=folder)
    except CommandError as error:
        if os.geteuid() != 0:
            raise MissingError(
                f"apt does not fetch {package}: run 'apt-get update' or the same command as root; {error}"
            ) from None
        # Lists of packages that are missing or out of date.
        run("apt-get", "update")
        run(*download, folder=folder)
    [archive] = folder.glob("*.deb")
    return archive


def _keep(found: Path, program: Path) -> None:
    program.parent.mkdir(parents=True, exist_ok=True)
    partial = program.with_suffix(".partial")
    shutil.copyfile(found, partial)
    partial.chmod(0o755)
    # Whole or not at all, because the next call takes what is there.
    partial.replace(program)
