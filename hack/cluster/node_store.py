"""The images of the control plane, in the store of the node's own containerd."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hack.commands import run, succeeds
from hack.errors import CommandError
from hack.images.image_archive import ImageConfig, write_image
from hack.toolchain.binaries import binary_path

_START_SECONDS: Final = 20
# Where the node's root has the folder for the time of the build.
_STATE: Final = "run/build"
# What kube-proxy calls, and the plug-ins that they load.
_NETWORK_PROGRAMS: Final = (
    "usr/sbin/xtables-nft-multi",
    "usr/sbin/xtables-legacy-multi",
    "usr/sbin/conntrack",
    "usr/sbin/nft",
)
_NETWORK_PLUGINS: Final = "usr/lib/x86_64-linux-gnu/xtables/*.so"


def fill_store(root: Path, version: str, folder: Path) -> None:
    """Put every image that kubeadm asks for into the store of the node whose file system is `root`."""
    state = root / _STATE
    state.mkdir()
    with _containerd(root):
        for image in _wanted(root, version):
            program = image.rpartition("/")[2].partition(":")[0]
            files = folder / program
            entrypoint = _FILES.get(program, _plain)(root, program, files)
            write_image(state / "image.tar", image, files, ImageConfig(entrypoint=entrypoint))
            # Unpacked when a node first runs it: the snapshots of every image would double the size.
            _ctr(root, "images", "import", "--no-unpack", "--all-platforms", f"/{_STATE}/image.tar")
    shutil.rmtree(state)


def _wanted(root: Path, version: str) -> list[str]:
    listed = run(
        binary_path("kubeadm"), "config", "images", "list", f"--kubernetes-version={version}"
    ).split()
    # containerd's configuration decides about the sandbox, whatever kubeadm lists.
    config = (root / "etc/containerd/config.toml").read_text(encoding="utf-8")
    found = re.search(r'sandbox_image = "(.*)"', config)
    if found is None:
        raise CommandError("kind's configuration of containerd names no sandbox image")
    return [image for image in listed if "/pause:" not in image] + [found[1]]


def _plain(_: Path, program: str, files: Path) -> tuple[str, ...]:
    """Put a static program where the manifests of kubeadm call it by name."""
    _install(program, files / "usr/local/bin" / program)
    return ()


def _at_root(_: Path, program: str, files: Path) -> tuple[str, ...]:
    _install(program, files / program)
    return (f"/{program}",)


def _kube_proxy(root: Path, program: str, files: Path) -> tuple[str, ...]:
    """Add iptables, conntrack and nft of the node's own Debian, with the libraries they are linked to."""
    _install(program, files / "usr/local/bin" / program)
    for name in ("bin", "sbin", "lib", "lib64"):
        (files / "usr" / name).mkdir(parents=True, exist_ok=True)
        (files / name).symlink_to(f"usr/{name}")
    for name in ("run", "tmp"):
        (files / name).mkdir()
    plugins = [str(path.relative_to(root)) for path in root.glob(_NETWORK_PLUGINS)]
    wanted = set(_NETWORK_PROGRAMS) | set(plugins)
    for name in sorted(wanted):
        libraries = run("chroot", root, "ldd", f"/{name}")
        wanted |= {f"usr{path}" for path in re.findall(r"(/lib\S+)", libraries)}
    for name in sorted(wanted):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, files / name)
    for family in ("iptables", "ip6tables"):
        for action in ("", "-save", "-restore"):
            (files / "usr/sbin" / f"{family}{action}").symlink_to("xtables-nft-multi")
    run("chroot", files, "/usr/sbin/iptables", "--version")
    return ()


_FILES: Final = {"kube-proxy": _kube_proxy, "coredns": _at_root, "pause": _at_root}


def _install(program: str, target: Path) -> None:
    target.parent.mkdir(parents=True)
    shutil.copy(binary_path(program), target)


@contextmanager
def _containerd(root: Path) -> Iterator[None]:
    """Run the node's containerd on the node's store, without the parts that run containers."""
    (root / _STATE / "config.toml").write_text(
        f"""version = 2
state = "/{_STATE}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "/{_STATE}/containerd.sock"
""",
        encoding="utf-8",
    )
    with (root / _STATE / "log").open("wb") as log:
        process = subprocess.Popen(
            ["chroot", root, "containerd", f"--config=/{_STATE}/config.toml"], stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not succeeds(*_ctr_command(root), "version"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CommandError(
                    f"containerd does not start: {(root / _STATE / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _ctr_command(root: Path) -> list[str | Path]:
    return ["chroot", root, "ctr", f"--address=/{_STATE}/containerd.sock", "--namespace=k8s.io"]


def _ctr(root: Path, *arguments: str) -> None:
    run(*_ctr_command(root), *arguments)
