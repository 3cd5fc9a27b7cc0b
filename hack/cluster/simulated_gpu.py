"""Nodes that report accelerators they do not have, as a device plugin would. No pod can compute on one.

https://kubernetes.io/docs/tasks/administer-cluster/extended-resource-node/
"""

import json
from collections.abc import Iterable
from typing import Final

from hack.cluster.kubectl import Kubectl

GPU_LABEL: Final = "nvidia.com/gpu.present"
GPU_RESOURCE: Final = "nvidia.com/gpu"


def set_accelerators(kubectl: Kubectl, nodes: Iterable[str], count: int) -> None:
    """Give each of `nodes` a capacity of `count` accelerators; 0 takes them away."""
    amount = {GPU_RESOURCE: str(count)}
    # The kubelet would derive what is allocatable from the capacity, but only after a while.
    patch = json.dumps({"status": {"capacity": amount, "allocatable": amount}})
    for node in nodes:
        kubectl("patch", "node", node, "--subresource=status", "--type=merge", f"--patch={patch}")
