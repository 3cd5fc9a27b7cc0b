"""The pinned kubectl against one API server, independent of the settings of the person who runs it."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
            self._command(arguments),
            input=manifest if manifest is None or isinstance(manifest, str) else yaml.safe_dump(manifest),
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise KubectlError(result.stderr.strip())
        return result.stdout

    @contextmanager
    def forwarded(self, resource: str, port: int, *arguments: str) -> Iterator[int]:
        """Yield a port of this machine that leads to `port` of a Service or pod while the block runs."""
        arguments = ("port-forward", resource, f":{port}", *arguments)
        with subprocess.Popen(
            self._command(arguments), env=self._environment, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise KubectlError(f"kubectl port-forward {resource} ended")
                # Forwarding from 127.0.0.1:40123 -> 9000
                yield int(line.partition(" -> ")[0].rpartition(":")[2])
            finally:
                process.terminate()

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [str(binary_path("kubectl")), f"--cache-dir={self.server.folder}/kubectl", *arguments]

    @property
    def _environment(self) -> dict[str, str]:
        # kuberc holds a person's own defaults and aliases.
        return {**os.environ, "KUBECONFIG": str(self.server.kubeconfig), "KUBERC": "off"}

    def get(self, *arguments: str) -> Any:
        """The object that `kubectl get` shows."""
        return json.loads(self("get", *arguments, "--output=json"))
