"""The pinned kubectl against one API server, independent of the settings of the person who runs it."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from hack.errors import KubectlError
from hack.toolchain.binaries import binary_path


class Server(Protocol):
    """What kubectl needs of a server: how to reach it, and a folder for the cache."""

    @property
    def kubeconfig(self) -> Path:
        """File that names the API server and the user."""
        ...

    @property
    def folder(self) -> Path:
        """Folder that lives as long as the server."""
        ...


@dataclass(frozen=True)
class Kubectl:
    """Call it with kubectl's arguments."""

    server: Server

    def __call__(self, *arguments: str, manifest: Any = None) -> str:
        """Run kubectl and return what it writes. Its standard input is `manifest`: an object, or YAML.

        Raises KubectlError if it fails.
        """
        result = subprocess.run(
            [binary_path("kubectl"), f"--cache-dir={self.server.folder}/kubectl", *arguments],
            input=manifest if manifest is None or isinstance(manifest, str) else yaml.safe_dump(manifest),
            # kuberc holds a person's own defaults and aliases.
            env={**os.environ, "KUBECONFIG": str(self.server.kubeconfig), "KUBERC": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise KubectlError(result.stderr.strip())
        return result.stdout

    def get(self, *arguments: str) -> Any:
        """The object that `kubectl get` shows."""
        return json.loads(self("get", *arguments, "--output=json"))
