"""Builds of this project's Dockerfiles, with Docker or buildah, whichever the machine has."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hack.commands import run, succeeds
from hack.errors import MissingError
from hack.images.debian import require, root_file_system
from hack.images.image_archive import ImageConfig, write_image
from hack.paths import CACHE, PROJECT

# What Debian's root file system stands in for, where no registry is reached.
BASE_IMAGE: Final = "python:3.11-slim-bookworm"
BASE_PACKAGES: Final = ("bash", "ca-certificates", "procps", "python3", "python3-venv", "wget")
# The steps of the newest builds of both images, from which the next ones begin; each may be as large as Ray.
_KEPT_LAYERS: Final = 6
_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Builder:
    """A program that builds images, with the options that it takes before its own commands."""

    program: tuple[str, ...]

    @property
    def is_docker(self) -> bool:
        """Whether Docker builds, and so keeps images in its engine."""
        return self.program[0] == "docker"

    def build(
        self, dockerfile: str, name: str, arguments: Mapping[str, str], *, for_docker: bool = False
    ) -> str:
        """Build the image `name` and return its identifier.

        Only an image `for_docker` keeps the Dockerfile's health check, which Kubernetes does not read.
        Without it, buildah may use the OCI format, and only then finds layers of earlier builds.
        """
        with TemporaryDirectory() as folder:
            identifier = Path(folder) / "id"
            command = [*self.program, "build", "--network=host", f"--iidfile={identifier}"]
            if not self.is_docker:
                # chroot needs no container runtime.
                command += ["--layers", "--isolation=chroot"]
                command += ["--format=docker"] if for_docker else []
            command += [f"--file={dockerfile}", f"--tag={name}"]
            # A network may have an authority of its own between us and the package index.
            if _AUTHORITIES.exists():
                command.append(f"--secret=id=ca,src={_AUTHORITIES}")
            command += [f"--build-arg={key}={value}" for key, value in arguments.items()]
            run(*command, str(PROJECT))
            return identifier.read_text(encoding="utf-8").strip()

    def save(self, name: str, archive: Path) -> None:
        """Write the image `name` to `archive`, in the format of `docker save`."""
        archive.parent.mkdir(parents=True, exist_ok=True)
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        if self.is_docker:
            run("docker", "save", f"--output={partial}", name)
        else:
            run(*self.program, "push", "--quiet", name, f"docker-archive:{partial}:{name}")
        partial.replace(archive)

    def drop_old_layers(self) -> None:
        """Remove what earlier builds have left; Docker does so by itself."""
        if self.is_docker:
            return
        # The newest come first.
        unnamed = run(*self.program, "images", "--filter=dangling=true", "--quiet", "--no-trunc").split()
        for identifier in unnamed[_KEPT_LAYERS:]:
            # Fails, as it should, for one that another is made of.
            succeeds(*self.program, "rmi", identifier)

    def base_image(self) -> str:
        """Name of the image to build on: Python's own if its registry answers, else Debian made here."""
        if succeeds(*self.program, "pull", "--quiet", BASE_IMAGE):
            return BASE_IMAGE
        root = root_file_system(BASE_PACKAGES)
        name = f"localhost/model-endpoints/python:{root.name}"
        # Loaded once, so that layers of earlier builds on it are found again, too.
        if not succeeds(*self.program, "inspect", "--type=image", name):
            archive = CACHE / "images" / f"python-{root.name}.tar"
            write_image(archive, name, root, ImageConfig())
            self._load(archive)
            archive.unlink()
        return name

    def _load(self, archive: Path) -> None:
        if self.is_docker:
            run("docker", "load", "--quiet", f"--input={archive}")
        else:
            run(*self.program, "pull", "--quiet", f"docker-archive:{archive}")


def find_builder() -> Builder:
    """A builder that this machine has. On Debian, buildah is installed for root.

    Raises MissingError if there is none.
    """
    if shutil.which("buildah") is None:
        if succeeds("docker", "buildx", "version") and succeeds("docker", "version"):
            return Builder(("docker",))
        if os.geteuid() != 0:
            raise MissingError(
                "nothing here can build images: start Docker with its buildx, or install buildah"
            )
        require("buildah")
    # A store of its own: images of the person at the terminal are neither used nor removed.
    store = CACHE / "buildah"
    store.mkdir(parents=True, exist_ok=True)
    return Builder(("buildah", f"--root={store}/storage", f"--runroot={store}/run"))
