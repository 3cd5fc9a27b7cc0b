"""Make an API server know our own kind, and KubeRay's as its Go module has it; that is never committed."""

import contextlib
import time
from typing import Final

from hack.cluster.kubectl import Kubectl
from hack.errors import KubectlError
from hack.paths import CRD
from hack.toolchain.go_modules import module_folder

CRD_NAME: Final = "customresourcedefinitions/modelendpoints.serving.modelendpoint.dev"

_KUBERAY: Final = "github.com/ray-project/kuberay/ray-operator"
_SERVED_SECONDS: Final = 30


def install_model_endpoints(kubectl: Kubectl) -> None:
    """Apply the committed CRD and wait until its objects can be stored."""
    kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", f"--filename={CRD}")
    _wait_until_served(kubectl, "modelendpoints")


def install_ray_services(kubectl: Kubectl) -> None:
    """Apply KubeRay's CRD of RayServices and wait until its objects can be stored."""
    crd = module_folder("kuberay", _KUBERAY) / "config" / "crd" / "bases" / "ray.io_rayservices.yaml"
    # Above 262 kB a CRD fits into no annotation, which client-side apply would write.
    kubectl("apply", "--server-side", f"--filename={crd}")
    _wait_until_served(kubectl, "rayservices")


def _wait_until_served(kubectl: Kubectl, resource: str) -> None:
    # The condition Established says that the name is taken; the path is there a moment later.
    deadline = time.monotonic() + _SERVED_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(KubectlError):
            kubectl("get", resource)
            return
        time.sleep(0.1)
    raise AssertionError(f"the API server does not serve {resource} {_SERVED_SECONDS} s after their CRD came")
