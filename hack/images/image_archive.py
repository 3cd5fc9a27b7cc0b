"""Pack a folder into a container image of one layer, without a container engine.

The file has the format of `docker save`: a manifest, a configuration and the layer as a tar file. Docker,
Podman and containerd all load it. Specification of the configuration:
https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md
"""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hack.commands import run

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ARCHITECTURE: Final = "amd64"


@dataclass(frozen=True)
class ImageConfig:
    """What the image says about how it is run."""

    entrypoint: tuple[str, ...] = ()
    environment: tuple[str, ...] = (_PATH,)
    user: str = ""
    stop_signal: str = ""

    def document(self, layer_digest: str) -> bytes:
        """The image's configuration for a single layer of that digest, as JSON."""
        config = {
            "Env": list(self.environment),
            "Entrypoint": list(self.entrypoint) or None,
            "User": self.user,
        }
        if self.stop_signal:
            config["StopSignal"] = self.stop_signal
        return json.dumps(
            {
                "architecture": _ARCHITECTURE,
                "os": "linux",
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
                # One entry per layer: without it, no image can be built on this one.
                "history": [{"created_by": "model-endpoints"}],
            },
            sort_keys=True,
        ).encode()


def write_image(archive: Path, name: str, root: Path, config: ImageConfig) -> None:
    """Write the image `name`, with its tag, to the file `archive`; its file system is the folder `root`."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".partial")
    # Beside the archive, because a layer of gigabytes may not fit into the folder for temporary files.
    with TemporaryDirectory(dir=archive.parent) as folder:
        layer = Path(folder) / "layer.tar"
        run("tar", "--create", "--numeric-owner", f"--file={layer}", f"--directory={root}", ".")
        document = config.document(f"sha256:{_digest(layer)}")
        configuration = f"{hashlib.sha256(document).hexdigest()}.json"
        manifest = [{"Config": configuration, "RepoTags": [name], "Layers": ["layer.tar"]}]
        with tarfile.open(partial, "w") as tar:
            tar.add(layer, "layer.tar")
            _add(tar, configuration, document)
            _add(tar, "manifest.json", json.dumps(manifest).encode())
    partial.replace(archive)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
