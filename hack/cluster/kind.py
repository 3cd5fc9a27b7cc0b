"""The cluster of kind-config.yaml with KubeRay and this project's images in it: made and removed.

Other clusters are left alone: the containers of this one are recorded when it is made.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from hack.cluster import kuberay
from hack.cluster.engine import Engine, image_id, running_engine, start_engine, stop_engine
from hack.cluster.helm import Helm
from hack.cluster.kubectl import Kubectl
from hack.cluster.node_image import KUBERNETES, node_image
from hack.cluster.program_links import link_programs, unlink_programs
from hack.cluster.simulated_gpu import GPU_LABEL, set_accelerators
from hack.cluster.volumes import TORCH, VOLUMES, make_folders, provide_torch, provide_volumes
from hack.commands import run, succeeds
from hack.errors import MissingError
from hack.images.project_images import head_store_image, operator_image, serve_image
from hack.images.torch_layer import torch_layer
from hack.paths import CACHE, PROJECT
from hack.progress import step
from hack.toolchain.binaries import binary_path

CONFIG: Final = PROJECT / "kind-config.yaml"
ACCELERATORS: Final = 2
# kind's own name for it; all its clusters share it.
_NETWORK: Final = "kind"
_WAIT: Final = "180s"


@dataclass(frozen=True)
class Cluster:
    """A kind cluster by its name, and where its files are kept."""

    name: str

    @property
    def folder(self) -> Path:
        """Folder that lives as long as the cluster."""
        return CACHE / "kind" / self.name

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig for this cluster alone; the person's own has it, too."""
        return self.folder / "kubeconfig"

    @property
    def record(self) -> Path:
        """What is known of the cluster: its containers, and whether the engine was started for it."""
        return self.folder / "cluster.json"

    @property
    def volumes(self) -> Path:
        """Folder of the volumes that claims are bound to; every worker sees it."""
        return self.folder / "volumes"

    @property
    def program_links(self) -> Path:
        """List of the links that were put on the PATH."""
        return self.folder / "program-links"


def cluster() -> Cluster:
    """The cluster that kind-config.yaml describes, whether it exists or not."""
    return Cluster(configuration()["name"])


def is_up() -> bool:
    engine = running_engine()
    return engine is not None and _is_there(cluster(), engine)


def up() -> Cluster:
    """Make the cluster, or update the one that was made before, and return it.

    Raises MissingError for what the machine lacks or a cluster that is someone else's, CannotBuildError,
    CommandError or KubectlError if a step fails.
    """
    ours = cluster()
    engine = running_engine()
    started = engine is None
    if engine is None:
        engine = start_engine()
    ours.folder.mkdir(parents=True, exist_ok=True)
    if not _is_there(ours, engine):
        _create(ours, engine, engine_started=started)
    kubectl = Kubectl(ours)
    set_accelerators(kubectl, _gpu_nodes(kubectl), ACCELERATORS)
    # KubeRay starts while the other images are built and loaded.
    chart = kuberay.published_chart(Helm(ours), engine)
    if chart is not None:
        kuberay.install_chart(Helm(ours), chart)
    else:
        image, archive = kuberay.operator_image()
        _load(ours, engine, image, archive)
        kuberay.install_module(kubectl, image)
    for project in (serve_image(), operator_image(), head_store_image()):
        _load(ours, engine, project.name, project.archive)
    kuberay.wait_for_operator(kubectl)
    provide_volumes(kubectl, ours.volumes)
    provide_torch(kubectl, "default")
    link_programs(ours.program_links)
    return ours


def add_tag(name: str, tag: str) -> None:
    """Give the image `name` another tag in the workers."""
    engine = running_engine()
    assert engine is not None
    other = f"{name.rpartition(':')[0]}:{tag}"
    for node in _workers(cluster(), engine):
        engine.execute(node, "ctr", "-n=k8s.io", "images", "tag", "--force", name, other)


def down() -> None:
    """Remove the cluster that `up` made, and the engine if it was started for it."""
    ours = cluster()
    if not ours.record.exists():
        print(f"There is no cluster {ours.name} that was made here.")
        return
    engine = running_engine()
    if engine is not None and _is_there(ours, engine):
        with step(f"deleting cluster {ours.name}"):
            _kind(engine, "delete", "cluster", f"--name={ours.name}")
    unlink_programs(ours.program_links)
    record = json.loads(ours.record.read_text(encoding="utf-8"))
    if engine is not None and not record["network_was_there"]:
        # Fails, as it should, while another kind cluster is in it.
        succeeds(engine.program, "network", "rm", _NETWORK)
    shutil.rmtree(ours.folder)
    if record["engine_started"]:
        stop_engine()


def configuration() -> Any:
    return yaml.safe_load(CONFIG.read_text(encoding="utf-8"))


def _kind(engine: Engine, *arguments: str, stdin: str | None = None) -> str:
    return run(binary_path("kind"), *arguments, stdin=stdin, environment=engine.environment())


def _nodes(cluster: Cluster, engine: Engine) -> list[str]:
    return _kind(engine, "get", "nodes", f"--name={cluster.name}").split()


def _workers(cluster: Cluster, engine: Engine) -> list[str]:
    return [node for node in _nodes(cluster, engine) if "control-plane" not in node]


def _containers(cluster: Cluster, engine: Engine) -> list[str]:
    listed = run(
        *(engine.program, "ps", "--all", "--no-trunc", "--format={{.ID}}"),
        f"--filter=label=io.x-k8s.kind.cluster={cluster.name}",
    )
    return sorted(listed.split())


def _is_there(cluster: Cluster, engine: Engine) -> bool:
    """Whether the cluster exists and is complete. What an interrupted run left of it is removed.

    Raises MissingError if a cluster of that name was made by someone else.
    """
    containers = _containers(cluster, engine)
    if not containers:
        return False
    known = json.loads(cluster.record.read_text(encoding="utf-8")) if cluster.record.exists() else None
    if known is not None and known["containers"] == containers:
        return True
    if known is None or known["containers"]:
        raise MissingError(
            f"there is a cluster named {cluster.name} that was not made here: "
            f"run 'kind delete cluster --name {cluster.name}' if it may go"
        )
    _kind(engine, "delete", "cluster", f"--name={cluster.name}")
    return False


def _create(cluster: Cluster, engine: Engine, *, engine_started: bool) -> None:
    pulled = f"kindest/node:{KUBERNETES}"
    image = pulled
    if not engine.pulls(pulled):
        image, archive = node_image()
        engine.load(image, archive)
    config = configuration()
    make_folders(cluster.volumes)
    mounts = [
        {"hostPath": str(torch_layer()), "containerPath": TORCH, "readOnly": True},
        {"hostPath": str(cluster.volumes), "containerPath": VOLUMES},
    ]
    for node in config["nodes"]:
        if node["role"] == "worker":
            node.setdefault("extraMounts", []).extend(mounts)
    # Written first: what an interrupted run leaves is ours, too.
    network_was_there = succeeds(engine.program, "network", "inspect", _NETWORK)
    record = {"engine_started": engine_started, "network_was_there": network_was_there, "containers": []}
    cluster.record.write_text(json.dumps(record), encoding="utf-8")
    with step(f"cluster {cluster.name} of {len(config['nodes'])} nodes"):
        _kind(
            *(engine, "create", "cluster", "--config=-", f"--image={image}", f"--wait={_WAIT}"),
            stdin=yaml.safe_dump(config),
        )
    cluster.kubeconfig.touch(mode=0o600)
    cluster.kubeconfig.write_text(_kind(engine, "get", "kubeconfig", f"--name={cluster.name}"))
    if image != pulled:
        _add_routes(Kubectl(cluster), engine)
    record["containers"] = _containers(cluster, engine)
    cluster.record.write_text(json.dumps(record), encoding="utf-8")
    Kubectl(cluster)("wait", "node", "--all", "--for=condition=Ready", f"--timeout={_WAIT}")


def _add_routes(kubectl: Kubectl, engine: Engine) -> None:
    """Tell each node through which other node each pod is reached, as kindnet does in kind's own image."""
    nodes = kubectl.get("nodes")["items"]
    for node in nodes:
        for other in nodes:
            if other is not node:
                [address] = [a["address"] for a in other["status"]["addresses"] if a["type"] == "InternalIP"]
                route = ("ip", "route", "replace", other["spec"]["podCIDR"], "via", address)
                engine.execute(node["metadata"]["name"], *route)


def _gpu_nodes(kubectl: Kubectl) -> Iterable[str]:
    nodes = kubectl.get("nodes", f"--selector={GPU_LABEL}=true")["items"]
    return [node["metadata"]["name"] for node in nodes]


def _load(cluster: Cluster, engine: Engine, name: str, archive: Path) -> None:
    """Put an image into the workers that do not have it; no pod of ours runs on the control plane."""
    wanted = image_id(archive)
    missing = [
        node
        for node in _workers(cluster, engine)
        if wanted not in engine.execute(node, "ctr", "-n=k8s.io", "images", "ls")
    ]
    if missing:
        with step(f"{name} into {len(missing)} nodes"):
            _kind(
                *(engine, "load", "image-archive", str(archive)),
                *(f"--name={cluster.name}", f"--nodes={','.join(missing)}"),
            )
