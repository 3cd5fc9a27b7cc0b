"""Which binaries there are and what each is built from; the versions are read from the go.mod files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.paths import BINARIES, MODULES

_KUBERNETES_VERSION: Final = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True)
class Binary:
    """One program: the Go package it is built from, and how it tells its version."""

    name: str
    module: str
    require: str
    package: str
    version_arguments: tuple[str, ...] = ("--version",)
    # Go packages whose version variables are set when the program is linked.
    stamped: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of the go.mod that pins it."""
        return MODULES / self.module

    @property
    def version(self) -> str:
        """Version that the go.mod asks for, such as v1.35.4."""
        text = (self.folder / "go.mod").read_text(encoding="utf-8")
        found = re.search(rf"^\s*(?:require )?{re.escape(self.require)} (v\S+)", text, re.MULTILINE)
        if found is None:
            raise LookupError(f"{self.folder}/go.mod does not require {self.require}")
        return found[1]

    @property
    def built(self) -> Path:
        """Place of the program once it is built."""
        return BINARIES / f"{self.name}-{self.version}" / self.name

    def linker_flags(self) -> str:
        """Return the value of -ldflags: no debug information, and the version where it is not compiled in."""
        major, minor = self.version.removeprefix("v").split(".")[:2]
        values = {"gitVersion": self.version, "gitMajor": major, "gitMinor": minor}
        stamps = [f"-X {path}.{key}={value}" for path in self.stamped for key, value in values.items()]
        return " ".join(["-s", "-w", *stamps])


def _kubernetes(name: str, *version_arguments: str) -> Binary:
    return Binary(
        name,
        module="kubernetes",
        require="k8s.io/kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        version_arguments=version_arguments or ("--version",),
        stamped=_KUBERNETES_VERSION,
    )


CATALOGUE: Final[Mapping[str, Binary]] = {
    binary.name: binary
    for binary in (
        Binary("etcd", "etcd", require="go.etcd.io/etcd/server/v3", package="go.etcd.io/etcd/server/v3"),
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kubectl", "version", "--client"),
    )
}
