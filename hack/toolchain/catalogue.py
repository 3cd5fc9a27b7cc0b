"""The programs that can be built, and the Go package of each. The go.mod files decide the versions."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hack.paths import BINARIES, MODULES

_KUBERNETES_VERSION: Final = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True)
class Binary:
    """One program: the Go package that it is built from, and how it reports its version."""

    name: str
    module: str
    require: str
    package: str
    # None if it reports no version: such a program is always built and never looked for on the PATH.
    version_arguments: tuple[str, ...] | None = ("--version",)
    # Variables that are set when the program is linked: the full name of each, and the part of the version.
    stamps: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of the go.mod that pins it."""
        return MODULES / self.module

    @property
    def version(self) -> str:
        """Version that the go.mod asks for, such as v1.37.0."""
        return required(self.module, self.require)

    @property
    def built(self) -> Path:
        """Place of the program once it is built."""
        return BINARIES / f"{self.name}-{self.version}{self._sources()}" / self.name

    def says_its_version(self, output: str) -> bool:
        """Whether `output` names exactly the pinned version, with or without the v."""
        number = re.escape(self.version.removeprefix("v"))
        return re.search(rf"(?<![\d.]){number}(?![\w.-])", output) is not None

    def linker_flags(self) -> str:
        """Value of -ldflags: no debug information, and the version where it is not compiled in."""
        major, minor = self.version.removeprefix("v").split(".")[:2]
        values = {"version": self.version, "major": major, "minor": minor}
        stamps = [f"-X {name}={values[part]}" for name, part in self.stamps]
        return " ".join(["-s", "-w", *stamps])

    def _sources(self) -> str:
        # The programs of our own change without a change of version.
        if not self.package.startswith("./"):
            return ""
        source = self.folder / self.package / "main.go"
        return f"-{hashlib.sha256(source.read_bytes()).hexdigest()[:8]}"


def required(module: str, path: str) -> str:
    """Version of the Go module `path` that the go.mod in the folder `module` requires."""
    file = MODULES / module / "go.mod"
    found = re.search(
        rf"^\s*(?:require )?{re.escape(path)} (v\S+)", file.read_text(encoding="utf-8"), re.MULTILINE
    )
    if found is None:
        raise LookupError(f"{file} does not require {path}")
    return found[1]


def _kubernetes(name: str, *version_arguments: str) -> Binary:
    parts = {"gitVersion": "version", "gitMajor": "major", "gitMinor": "minor"}
    return Binary(
        name,
        module="kubernetes",
        require="k8s.io/kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        version_arguments=version_arguments or ("--version",),
        stamps=tuple((f"{path}.{key}", part) for path in _KUBERNETES_VERSION for key, part in parts.items()),
    )


def _node(name: str) -> Binary:
    """A program of our own for the node image."""
    return Binary(name, module="node", require="k8s.io/cri-api", package=f"./{name}", version_arguments=None)


_BINARIES: Final = (
    Binary("etcd", "etcd", require="go.etcd.io/etcd/server/v3", package="go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kubectl", "version", "--client"),
    _kubernetes("kubeadm", "version", "--output=short"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    _kubernetes("kube-scheduler"),
    _node("crictl"),
    _node("pause"),
    Binary(
        "coredns",
        "coredns",
        require="github.com/coredns/coredns",
        package="github.com/coredns/coredns",
        version_arguments=("-version",),
    ),
    Binary("kind", "kind", require="sigs.k8s.io/kind", package="sigs.k8s.io/kind"),
    Binary(
        "helm",
        "helm",
        require="helm.sh/helm/v4",
        package="helm.sh/helm/v4/cmd/helm",
        version_arguments=("version", "--template={{.Version}}"),
        stamps=(("helm.sh/helm/v4/internal/version.version", "version"),),
    ),
    Binary(
        "helm-docs",
        "helm-docs",
        require="github.com/norwoodj/helm-docs",
        package="github.com/norwoodj/helm-docs/cmd/helm-docs",
        version_arguments=None,
    ),
    Binary(
        "kuberay-operator",
        "kuberay",
        require="github.com/ray-project/kuberay/ray-operator",
        package="github.com/ray-project/kuberay/ray-operator",
        version_arguments=None,
    ),
)
CATALOGUE: Final[Mapping[str, Binary]] = {binary.name: binary for binary in _BINARIES}
