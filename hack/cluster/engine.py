"""The container engine of this machine: found, or Debian's, started and stopped; and the images in it."""

import json
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hack.commands import run, succeeds
from hack.errors import MissingError
from hack.paths import HACK
from hack.progress import step

START_SCRIPT: Final = HACK / "docker-engine"
# A registry that answers at all answers within seconds; the layers then take as long as they take.
_PULL_SECONDS: Final = 600


@dataclass(frozen=True)
class Engine:
    """A container engine that runs, by the name of its command."""

    program: str

    def environment(self) -> dict[str, str]:
        """Environment in which kind uses this engine."""
        return {**os.environ, "KIND_EXPERIMENTAL_PROVIDER": self.program}

    def has_image(self, name: str) -> bool:
        return succeeds(self.program, "image", "inspect", name)

    def pulls(self, name: str) -> bool:
        """Whether the engine has the image `name`, after an attempt to pull it if it had not."""
        if self.has_image(name):
            return True
        try:
            result = subprocess.run(
                [self.program, "pull", "--quiet", name],
                capture_output=True,
                timeout=_PULL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return result.returncode == 0

    def load(self, name: str, archive: Path) -> None:
        """Load the image `name` from `archive` unless the engine has it."""
        if not self.has_image(name):
            with step(f"loading {name} into {self.program}"):
                run(self.program, "load", f"--input={archive}")

    def execute(self, container: str, *command: str) -> str:
        """Run `command` in `container` and return what it writes."""
        return run(self.program, "exec", container, *command)


def running_engine() -> Engine | None:
    """The engine that answers on this machine, Docker before Podman; None if there is none."""
    if succeeds("docker", "version"):
        return Engine("docker")
    if succeeds("podman", "info"):
        return Engine("podman")
    return None


def start_engine() -> Engine:
    """Start Debian's engine and return it.

    Raises MissingError if this user cannot.
    """
    if os.geteuid() != 0:
        raise MissingError(
            "no container engine is running: start Docker or Podman, or run 'sudo hack/docker-engine start'"
        )
    with step("starting Docker's engine"):
        run(START_SCRIPT, "start")
    return Engine("docker")


def stop_engine() -> None:
    """Stop the engine that `start_engine` started, if it did."""
    with step("stopping Docker's engine"):
        run(START_SCRIPT, "stop")


def image_id(archive: Path) -> str:
    """The ID that engines and nodes give to the image in `archive`."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        [image] = json.load(manifest)
    return f"sha256:{image['Config'].removesuffix('.json')}"
