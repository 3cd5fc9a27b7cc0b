"""torch as a folder that all nodes of the cluster mount, instead of a layer of the image.

A layer's gigabytes would be copied four times: into the builder, the archive, and the store of each worker.
"""

import hashlib
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hack.commands import run
from hack.images.builder import BASE_PACKAGES
from hack.images.debian import root_file_system
from hack.locks import locked
from hack.paths import CACHE, PROJECT
from hack.progress import step

# The image has this one, both on Debian bookworm and on Python's own image.
_PYTHON: Final = "3.11"


def torch_layer() -> Path:
    """Folder with torch and what only torch needs, for the image's Python.

    Raises MissingError if this user or machine cannot, CommandError if it fails.
    """
    requirements = _requirements_of_torch()
    key = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    folder = CACHE / f"torch-{key}"
    with locked(folder):
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            with step("torch for the nodes"):
                _install(requirements, partial)
                _compile(partial)
            partial.rename(folder)
    return folder


def packages_of_torch() -> list[str]:
    """Names of torch and the packages that only torch needs."""
    return sorted({line.partition("==")[0] for line in _requirements_of_torch()})


def _requirements_of_torch() -> list[str]:
    rest = set(_requirements("--prune=torch"))
    return [line for line in _requirements() if line not in rest]


def _requirements(*options: str) -> list[str]:
    """Locked requirements of the Serve application, each as `name==version`."""
    exported = run(
        *_uv("export", "--quiet", "--frozen", "--no-default-groups", "--no-emit-project", "--no-hashes"),
        *("--no-annotate", "--no-header", "--extra=serve"),
        *options,
        folder=PROJECT,
    )
    return exported.splitlines()


def _uv(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "uv", *arguments]


def _install(requirements: list[str], target: Path) -> None:
    run(
        *_uv("pip", "install", "--quiet", "--no-deps", f"--python-version={_PYTHON}"),
        *("--python-platform=x86_64-manylinux_2_36", f"--target={target}", "--requirement=-"),
        stdin="\n".join(requirements),
        folder=PROJECT,
    )


def _compile(folder: Path) -> None:
    """Add byte code. The nodes mount the folder read-only, so each process would compile all of it again."""
    with TemporaryDirectory(dir=CACHE) as name:
        root = Path(name) / "root"
        run("cp", "--archive", root_file_system(BASE_PACKAGES), root)
        inside = root / "layer"
        folder.rename(inside)
        # torch has test files in a newer Python's syntax.
        run("chroot", root, "python3", "-m", "compileall", "-q", "-j0", "-x=/_internal/py3", "/layer")
        inside.rename(folder)
