"""Build the image of a kind node from Debian packages and Go modules, where kindest/node cannot be pulled.

Follows images/base/Dockerfile of kind. What differs, and why:
- the pod network is containerd's own (the ptp plugin), because kindnet is not in kind's Go module;
- containerd never lowers a process's out-of-memory score, because the machine may forbid it.
"""

import hashlib
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hack.cluster.node_store import fill_store
from hack.commands import run
from hack.images.debian import root_file_system
from hack.images.image_archive import ImageConfig, write_image
from hack.locks import locked
from hack.paths import CACHE, MODULES
from hack.progress import step
from hack.toolchain.binaries import binary_path
from hack.toolchain.catalogue import CATALOGUE
from hack.toolchain.go_modules import module_folder

KUBERNETES: Final = CATALOGUE["kubelet"].version
PACKAGES: Final = (
    "bash",
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "ethtool",
    "iproute2",
    "iptables",
    "jq",
    "kmod",
    "libseccomp2",
    "mount",
    "nftables",
    "procps",
    "runc",
    "socat",
    "systemd",
    "util-linux",
)
_CONFIG: Final = ImageConfig(
    entrypoint=("/usr/local/bin/entrypoint", "/sbin/init"),
    environment=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=docker"),
    stop_signal="SIGRTMIN+3",
)
# Units of a whole machine that fail or do harm in a container; from kind's Dockerfile.
_UNWANTED_UNITS: Final = (
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "lib/systemd/system/multi-user.target.wants/*",
    "etc/systemd/system/*.wants/*",
    "lib/systemd/system/local-fs.target.wants/*",
    "lib/systemd/system/sockets.target.wants/*udev*",
    "lib/systemd/system/sockets.target.wants/*initctl*",
    "lib/systemd/system/basic.target.wants/*",
)
_CNI_CONFIG: Final = """
[plugins."io.containerd.grpc.v1.cri".cni]
  # containerd fills in the node's pod network itself.
  conf_template = "/etc/containerd/cni.template"
"""
# Braces in doubled braces are containerd's own template language.
_CNI_TEMPLATE: Final = """{
  "cniVersion": "0.4.0",
  "name": "kind",
  "plugins": [
    {"type": "ptp", "ipMasq": true,
     "ipam": {"type": "host-local",
              "ranges": [[{"subnet": "{{.PodCIDR}}"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"""
# kind applies both files when it creates a cluster.
_MANIFESTS: Final = {
    "default-cni.yaml": """apiVersion: v1
kind: ConfigMap
metadata: {name: node-network, namespace: kube-system}
data: {plugin: ptp}
""",
    "default-storage.yaml": """apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
# `make kind-up` makes its volumes: a provisioner for nodes is an image of its own.
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
""",
}


def node_image() -> tuple[str, Path]:
    """Name of the image, and the archive that holds it.

    Raises MissingError if this user or machine cannot, CannotBuildError or CommandError if it fails.
    """
    name = f"localhost/model-endpoints/kind-node:{KUBERNETES}-{_recipe()}"
    archive = CACHE / "images" / f"kind-node-{KUBERNETES}-{_recipe()}.tar"
    with locked(archive):
        if not archive.exists():
            debian = root_file_system(PACKAGES)
            with step(f"node image for Kubernetes {KUBERNETES}"), TemporaryDirectory(dir=CACHE) as folder:
                root = Path(folder) / "root"
                run("cp", "--archive", debian, root)
                _assemble(root)
                fill_store(root, KUBERNETES, Path(folder))
                write_image(archive, name, root, _CONFIG)
    return name, archive


def _recipe() -> str:
    """Short digest of everything that decides what is in the image, except the machine's Debian mirror."""
    here = Path(__file__)
    sources = [here, here.with_name("node_store.py"), *sorted(MODULES.glob("*/go.mod"))]
    digest = hashlib.sha256()
    for source in [*sources, *sorted((MODULES / "node").glob("*/main.go"))]:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]


def _assemble(root: Path) -> None:
    _copy_files_of_kind(root)
    _configure_containerd(root)
    _install_programs(root)
    _configure_systemd(root)


def _copy_files_of_kind(root: Path) -> None:
    files = module_folder("kind", "sigs.k8s.io/kind") / "images" / "base" / "files"
    for name in ("etc", "kind/bin", "usr/local/bin"):
        for source in sorted((files / name).rglob("*")):
            target = root / source.relative_to(files)
            if source.is_file():
                target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                # A module's files carry no execute bits.
                target.chmod(0o644 if name == "etc" else 0o755)


def _configure_containerd(root: Path) -> None:
    for name in ("containerd", "ctr", "containerd-shim-runc-v2"):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{name}")
    (root / "opt/cni").mkdir()
    (root / "opt/cni/bin").symlink_to("/usr/lib/cni")
    folder = root / "etc/containerd"
    config = folder / "config.toml"
    text = config.read_text(encoding="utf-8")
    strict = "restrict_oom_score_adj = true"
    assert strict not in text, "kind's own configuration does this by now"
    config.write_text(text.replace("restrict_oom_score_adj = false", strict) + _CNI_CONFIG, encoding="utf-8")
    (folder / "cni.template").write_text(_CNI_TEMPLATE, encoding="utf-8")
    spec = json.loads(run("chroot", root, "ctr", "oci", "spec"))
    spec.setdefault("hooks", {}).setdefault("createContainer", []).append(
        {"path": "/kind/bin/mount-product-files.sh"}
    )
    del spec["process"]["rlimits"]
    (folder / "cri-base.json").write_text(json.dumps(spec), encoding="utf-8")


def _install_programs(root: Path) -> None:
    for name in ("kubeadm", "kubelet", "kubectl"):
        shutil.copy(binary_path(name), root / "usr/bin" / name)
    shutil.copy(binary_path("crictl"), root / "usr/local/bin/crictl")
    (root / "kind/version").write_text(KUBERNETES, encoding="utf-8")
    (root / "kind/manifests").mkdir()
    for name, text in _MANIFESTS.items():
        (root / "kind/manifests" / name).write_text(text, encoding="utf-8")


def _configure_systemd(root: Path) -> None:
    for pattern in _UNWANTED_UNITS:
        for path in root.glob(pattern):
            path.unlink()
    with (root / "etc/systemd/journald.conf").open("a", encoding="utf-8") as file:
        file.write("ReadKMsg=no\n")
    init = root / "sbin/init"
    init.unlink(missing_ok=True)
    init.symlink_to("/usr/lib/systemd/systemd")
    run("chroot", root, "systemctl", "enable", "kubelet", "containerd", "undo-mount-hacks")
    run("chroot", root, "systemctl", "mask", "systemd-binfmt")
