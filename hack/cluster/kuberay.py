"""Install KubeRay: its Helm chart where the network has it, else what its Go module describes.

The Go module holds the definitions, the roles and the operator, but not the chart. A checkout of another
version takes its place if the variable KUBERAY_SOURCE names it (the folder `ray-operator`).
"""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from hack.cluster.engine import Engine
from hack.cluster.helm import Helm
from hack.cluster.kubectl import Kubectl
from hack.commands import run
from hack.errors import CommandError
from hack.images.image_archive import ImageConfig, write_image
from hack.locks import locked
from hack.paths import CACHE
from hack.progress import step
from hack.toolchain.binaries import binary_path
from hack.toolchain.catalogue import CATALOGUE
from hack.toolchain.go_modules import module_folder
from hack.toolchain.go_toolchain import find_go

NAMESPACE: Final = "kuberay-system"
# The address that KubeRay's documentation gives.
CHARTS: Final = "https://ray-project.github.io/kuberay-helm/"
_OPERATOR: Final = CATALOGUE["kuberay-operator"]
_CONFIG: Final = ImageConfig(entrypoint=("/manager",), user="65532:65532")
Chart = tuple[str, ...]


def version() -> str:
    """The version that is installed: the pinned one, or `source` for a checkout."""
    return "source" if _checkout() else _OPERATOR.version


def _checkout() -> Path | None:
    named = os.environ.get("KUBERAY_SOURCE")
    return Path(named).resolve() if named else None


def published_chart(helm: Helm, engine: Engine) -> Chart | None:
    """Helm's arguments for KubeRay's chart; None for a checkout, and if chart or image cannot be pulled."""
    if _checkout():
        return None
    chart = ("kuberay-operator", f"--repo={CHARTS}", f"--version={_OPERATOR.version.removeprefix('v')}")
    try:
        image = yaml.safe_load(helm("show", "values", *chart))["image"]
    except CommandError:
        return None
    return chart if engine.pulls(f"{image['repository']}:{image['tag']}") else None


def install_chart(helm: Helm, chart: Chart) -> None:
    """Install or upgrade KubeRay's chart."""
    with step(f"KubeRay {version()}"):
        helm(
            *("upgrade", "--install", "kuberay-operator", *chart),
            *(f"--namespace={NAMESPACE}", "--create-namespace"),
        )


def operator_image() -> tuple[str, Path]:
    """Name of the operator's image, and the archive that holds it."""
    name = f"localhost/model-endpoints/kuberay-operator:{version()}"
    archive = CACHE / "images" / f"kuberay-operator-{version()}.tar"
    with locked(archive), TemporaryDirectory() as folder:
        # Nothing says whether a checkout has changed, and Go knows what it has built.
        if _checkout() or not archive.exists():
            manager = Path(folder) / "manager"
            _build_to(manager)
            manager.chmod(0o755)
            Path(folder).chmod(0o755)
            write_image(archive, name, Path(folder), _CONFIG)
    return name, archive


def _build_to(manager: Path) -> None:
    checkout = _checkout()
    if checkout is None:
        manager.write_bytes(binary_path(_OPERATOR.name).read_bytes())
        return
    with step(f"KubeRay of {checkout}"):
        environment = {**os.environ, "CGO_ENABLED": "0"}
        run(find_go(checkout), "build", "-o", manager, ".", folder=checkout, environment=environment)


def manifests(image: str) -> list[dict[str, Any]]:
    """The objects that install KubeRay with the operator `image`: CRDs, roles, operator."""
    source = _checkout() or module_folder(_OPERATOR.module, _OPERATOR.require)
    text = run(binary_path("kubectl"), "kustomize", source / "config" / "default")
    # Its definitions have four million characters, which takes Python's own parser six seconds.
    documents = list(yaml.load_all(text, yaml.CSafeLoader))
    for document in documents:
        _move(document)
        if document["kind"] == "Deployment":
            [container] = document["spec"]["template"]["spec"]["containers"]
            container["image"] = image
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    return [namespace, *documents]


def install_module(kubectl: Kubectl, image: str) -> None:
    """Install or upgrade KubeRay from its Go module."""
    with step(f"KubeRay {version()}"):
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests(image)})
        # Its definitions are too large for the annotation that a client-side apply writes.
        kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", manifest=text)


def wait_for_operator(kubectl: Kubectl) -> None:
    """Wait until KubeRay's operator runs in the version that was installed last."""
    with step("KubeRay's operator"):
        kubectl(
            *("rollout", "status", "deployment/kuberay-operator"),
            *(f"--namespace={NAMESPACE}", "--timeout=180s"),
        )


def _move(document: dict[str, Any]) -> None:
    # The module puts it into `default`, where people's own objects are.
    for place in [document["metadata"], *document.get("subjects", [])]:
        if "namespace" in place:
            place["namespace"] = NAMESPACE
