"""Volumes of the kind cluster: torch for Ray's pods, and a few empty ones where no provisioner makes them."""

import shutil
from pathlib import Path
from typing import Any, Final

import yaml

from hack.cluster.kubectl import Kubectl

# Where the nodes see torch, and the folder of the empty volumes.
TORCH: Final = "/opt/model-endpoints-torch"
VOLUMES: Final = "/var/lib/model-endpoints-volumes"
_NAMES: Final = tuple(f"volume-{number}" for number in range(10))
_NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"


def make_folders(folder: Path) -> None:
    """Make the folders of the empty volumes in `folder`, writable for pods of any user."""
    for name in _NAMES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name).chmod(0o777)


def provide_volumes(kubectl: Kubectl, folder: Path) -> None:
    """Make the empty volumes that are missing, and empty those that were released.

    A cluster of kind's own node image needs none.
    """
    classes = kubectl.get("storageclasses")["items"]
    if all(each["provisioner"] != _NO_PROVISIONER for each in classes):
        return
    for old in kubectl.get("persistentvolumes")["items"]:
        name = old["metadata"]["name"]
        if name in _NAMES and old["status"]["phase"] == "Released":
            kubectl("delete", "persistentvolume", name)
            shutil.rmtree(folder / name)
    make_folders(folder)
    volumes = [_volume(name, "2Gi", f"{VOLUMES}/{name}", storageClassName="standard") for name in _NAMES]
    _apply(kubectl, volumes)


def provide_torch(kubectl: Kubectl, namespace: str) -> None:
    """Make the claim `torch` in `namespace`: restricted pods may mount claims, but no folders of nodes."""
    name = f"torch-{namespace}"
    volume = _volume(
        *(name, "8Gi", TORCH),
        accessModes=["ReadOnlyMany"],
        storageClassName="",
        claimRef={"name": "torch", "namespace": namespace},
    )
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "torch", "namespace": namespace},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "8Gi"}},
        },
    }
    for old in kubectl.get("persistentvolumes", f"--field-selector=metadata.name={name}")["items"]:
        # It remembers the claim of a namespace that was deleted.
        if old["status"]["phase"] == "Released":
            kubectl("delete", "persistentvolume", name)
    _apply(kubectl, [volume, claim])


def _volume(name: str, size: str, path: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": path, "type": "Directory"},
            **spec,
        },
    }


def _apply(kubectl: Kubectl, objects: list[dict[str, Any]]) -> None:
    text = yaml.safe_dump_all(objects)
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", manifest=text)
