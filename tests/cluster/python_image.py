"""Make the image that Ray runs in, and beside it, as a plain folder, the gigabytes of torch.

The image has Python, Ray and all that the Serve application needs but torch. Nodes see torch as a folder
of the machine, so that it is there once and not in the image store of every node.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.cluster.commands import run
from tests.cluster.debian import root_file_system
from tests.cluster.image_archive import ImageConfig, write_image
from tests.cluster.locks import locked
from tests.cluster.paths import CACHE, PROJECT
from tests.cluster.progress import step

# KubeRay's probes call bash and wget; ps is for people.
PACKAGES: Final = ("bash", "ca-certificates", "procps", "python3", "wget")
# Debian bookworm's.
_PYTHON: Final = "3.11"
_SITE: Final = f"usr/local/lib/python{_PYTHON}/dist-packages"
_USER: Final = 1000
_CONFIG: Final = ImageConfig(
    environment=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/home/ray"),
    user=f"{_USER}:{_USER}",
)


def ray_image() -> tuple[str, Path]:
    """Return the name of the image and the archive that holds it; build it first if need be.

    Raises MissingError if this user or machine cannot, CommandError if it fails.
    """
    requirements = _requirements("--prune=torch")
    key = _key(requirements, Path(__file__).read_text(encoding="utf-8"))
    version = _version(requirements, "ray")
    archive = CACHE / "images" / f"ray-{version}-{key}.tar"
    name = f"localhost/model-endpoints/ray:{version}"
    with locked(archive):
        if not archive.exists():
            debian = root_file_system(PACKAGES)
            with step(f"image with Ray {version}"), TemporaryDirectory(dir=CACHE) as folder:
                root = Path(folder) / "root"
                run("cp", "--archive", debian, root)
                _fill(root, requirements)
                write_image(archive, name, root, _CONFIG)
    return name, archive


def torch_layer() -> Path:
    """Return a folder with torch and what only torch needs, for the image's Python; install it if need be."""
    pruned = set(_requirements("--prune=torch"))
    requirements = [line for line in _requirements() if line not in pruned]
    folder = CACHE / f"torch-{_version(requirements, 'torch')}-{_key(requirements)}"
    with locked(folder):
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            with step(f"{folder.name} for the nodes"):
                _install(requirements, partial)
                # The nodes see it read-only: without byte code each import would compile all of it anew.
                debian = root_file_system(PACKAGES)
                _compile(debian, partial)
            partial.rename(folder)
    return folder


def _requirements(*options: str) -> list[str]:
    """Return the locked requirements of the Serve application, one a line."""
    exported = run(
        *_uv("export", "--quiet", "--frozen", "--no-default-groups", "--no-emit-project", "--no-hashes"),
        *("--no-annotate", "--no-header", "--extra=serve"),
        *options,
        folder=PROJECT,
    )
    return exported.splitlines()


def _uv(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "uv", *arguments]


def _version(requirements: list[str], name: str) -> str:
    [line] = [line for line in requirements if line.startswith(f"{name}==")]
    return line.removeprefix(f"{name}==").partition(" ")[0]


def _key(requirements: list[str], *more: str) -> str:
    return hashlib.sha256("\n".join([*requirements, *more]).encode()).hexdigest()[:8]


def _install(requirements: list[str], target: Path) -> None:
    run(
        *_uv("pip", "install", "--quiet", "--no-deps", f"--python-version={_PYTHON}"),
        *("--python-platform=x86_64-manylinux_2_36", f"--target={target}", "--requirement=-"),
        stdin="\n".join(requirements),
        folder=PROJECT,
    )


def _fill(root: Path, requirements: list[str]) -> None:
    site = root / _SITE
    _install(requirements, site)
    for script in (site / "bin").iterdir():
        # Scripts name the Python that installed them, which is not the image's.
        text = script.read_bytes()
        if text.startswith(b"#!") and b"python" in text.partition(b"\n")[0]:
            text = b"#!/usr/bin/python3\n" + text.partition(b"\n")[2]
        target = root / "usr/local/bin" / script.name
        target.write_bytes(text)
        target.chmod(0o755)
    shutil.rmtree(site / "bin")
    run("chroot", root, "python3", "-m", "compileall", "-q", "-j0", f"/{_SITE}")
    run("chroot", root, "useradd", "--create-home", f"--uid={_USER}", "--shell=/bin/bash", "ray")


def _compile(root: Path, folder: Path) -> None:
    """Compile what is in `folder` with the Python of `root`, as if it lay where the nodes see it."""
    with TemporaryDirectory(dir=CACHE) as name:
        copy = Path(name) / "root"
        run("cp", "--archive", root, copy)
        inside = copy / "layer"
        # Hard links: the byte code is new files, which are then moved back; nothing is copied.
        run("cp", "--archive", "--link", folder, inside)
        shutil.rmtree(folder)
        # torch tests itself with files of a newer Python's syntax.
        run("chroot", copy, "python3", "-m", "compileall", "-q", "-j0", "-x=/_internal/py3", "/layer")
        os.rename(inside, folder)
