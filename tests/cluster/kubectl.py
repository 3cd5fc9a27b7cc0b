"""Run the pinned kubectl against one API server, untouched by the settings of whoever runs it."""

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

import yaml

from tests.cluster.binaries import binary_path
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import KubectlError


@dataclass(frozen=True)
class Kubectl:
    """Call it with kubectl's arguments."""

    server: ControlPlane

    def __call__(self, *arguments: str, manifest: Any = None) -> str:
        """Return what kubectl writes; `manifest` becomes its standard input.

        Raises KubectlError if it fails.
        """
        result = subprocess.run(
            [binary_path("kubectl"), f"--cache-dir={self.server.folder}/kubectl", *arguments],
            input=None if manifest is None else yaml.safe_dump(manifest),
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
        """Return the object that `kubectl get` shows."""
        return json.loads(self("get", *arguments, "--output=json"))
