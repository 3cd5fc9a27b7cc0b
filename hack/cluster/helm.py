"""The pinned Helm against one cluster, independent of the settings of the person who runs it."""

import os
from dataclasses import dataclass

from hack.cluster.kubectl import Server
from hack.commands import run
from hack.toolchain.binaries import binary_path


@dataclass(frozen=True)
class Helm:
    """Call it with Helm's arguments."""

    server: Server

    def __call__(self, *arguments: str) -> str:
        """Run Helm and return what it writes. Raises CommandError if it fails."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")}
        folder = str(self.server.folder / "helm")
        own |= {"KUBECONFIG": str(self.server.kubeconfig), "HELM_CACHE_HOME": folder}
        own |= {"HELM_CONFIG_HOME": folder, "HELM_DATA_HOME": folder}
        return run(binary_path("helm"), *arguments, environment=own)
