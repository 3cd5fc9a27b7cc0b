"""Programs out of Debian packages, unpacked into the cache: nothing is installed, no service is started.

A program with libraries of its own is unpacked as a whole, beside the packages that it needs and the machine
lacks; a script of its name starts it.
"""

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hack.commands import run
from hack.errors import CommandError, MissingError
from hack.locks import locked
from hack.paths import BINARIES
from hack.progress import Write, step, to_stderr


@dataclass(frozen=True)
class Package:
    """A Debian package, the path of a program in it, and whether the program needs what lies beside it."""

    name: str
    member: str
    whole: bool = False


# The machine's Debian decides the versions.
PACKAGES: Final = {
    "prometheus": Package("prometheus", "usr/bin/prometheus"),
    "promtool": Package("prometheus", "usr/bin/promtool"),
    "chromium": Package("chromium-headless-shell", "usr/lib/chromium/chromium-headless-shell", whole=True),
}

# The user _apt, who would download else, may not write to the folder.
_AS_THIS_USER: Final = "--option=APT::Sandbox::User=root"


def debian_program(name: str, write: Write = to_stderr) -> Path:
    """Path of the program `name`: the one on the PATH, in the cache, or out of its package, fetched now.

    Raises MissingError on a system without apt, and where apt does not fetch the package.
    """
    on_path = shutil.which(name)
    if on_path is not None:
        return Path(on_path)
    package = PACKAGES[name]
    program = BINARIES / f"{name}-{package.name}-of-debian" / name
    with locked(program.parent):
        if not program.exists():
            if shutil.which("apt-get") is None:
                raise MissingError(
                    f"{name} is missing: install it; on Debian the package {package.name} has it"
                )
            with step(f"{name} out of Debian's package {package.name}", write):
                _unpack(package, program)
    return program


def _unpack(package: Package, program: Path) -> None:
    """Put what the program needs into its folder, and the program or a script that starts it last."""
    program.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=program.parent) as temporary:
        folder, root = Path(temporary), Path(temporary, "root")
        for archive in _fetch(package, folder):
            run("dpkg-deb", "--extract", archive, root)
        if not package.whole:
            _keep((root / package.member).read_bytes(), program)
            return
        kept = program.parent / "root"
        shutil.rmtree(kept, ignore_errors=True)
        root.rename(kept)
    _keep(_starter(kept, package.member).encode(), program)


def _fetch(package: Package, folder: Path) -> Sequence[Path]:
    """Download a package, with those that it needs and the machine lacks if it is wanted as a whole."""
    download: tuple[str, ...] = ("apt-get", "download", _AS_THIS_USER, package.name)
    if package.whole:
        # Nothing is installed, so it need not wait for another apt.
        archives = ("--option=Debug::NoLocking=1", f"--option=Dir::Cache::archives={folder}", _AS_THIS_USER)
        options = ("--yes", "--no-install-recommends", "--download-only", *archives)
        download = ("apt-get", "install", *options, package.name)
    try:
        run(*download, folder=folder)
    except CommandError as error:
        if os.geteuid() != 0:
            raise MissingError(
                f"apt does not fetch {package.name}: "
                f"run 'apt-get update' or the same command as root; {error}"
            ) from None
        # Lists of packages that are missing or out of date.
        run("apt-get", "update")
        run(*download, folder=folder)
    return sorted(folder.glob("*.deb"))


def _starter(root: Path, member: str) -> str:
    """Return a script that starts the program in `root` with the libraries and the fonts that lie there."""
    libraries = sorted({path.parent for path in root.glob("**/lib/*-linux-gnu/**/*.so*")})
    lines = ["#!/bin/sh", f"export LD_LIBRARY_PATH={shlex.quote(':'.join(map(str, libraries)))}"]
    if (root / "etc" / "fonts" / "fonts.conf").exists():
        lines.append(f"export FONTCONFIG_SYSROOT={shlex.quote(str(root))}")
    return "\n".join([*lines, f'exec {shlex.quote(str(root / member))} "$@"', ""])


def _keep(content: bytes, program: Path) -> None:
    partial = program.with_suffix(".partial")
    partial.write_bytes(content)
    partial.chmod(0o755)
    # Whole or not at all, because the next call takes what is there.
    partial.replace(program)
