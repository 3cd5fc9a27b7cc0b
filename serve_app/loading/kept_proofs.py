"""Keep on the node what was proved of a model, so that its next replica need not prove it again.

The name of a file is a digest of everything that the proof depends on: the files of the model, the task and
the dtype that was asked for, the processor, the versions of the libraries, and this project's own code.
"""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from serve_app.contract import Dtype, Task
from serve_app.encoders.shared_weights import own_folder
from serve_app.loading.sources.hub import HUB_FILES

_LIBRARIES: Final = ("torch", "transformers", "tokenizers", "safetensors")
# Of a large file, the digest has its size, its time, its beginning and its end.
_SAMPLE: Final = 64 * 1024
_SUFFIXES: Final = tuple(pattern.removeprefix("*") for pattern in HUB_FILES)


def digest_of(folder: Path, task: Task, dtype: Dtype, device: torch.device) -> str:
    """Return the digest under which a proof of the model in `folder` is kept."""
    digest = hashlib.sha256()
    facts = [task, dtype, _processor(device), *(f"{name} {version(name)}" for name in _LIBRARIES)]
    digest.update(json.dumps(facts).encode())
    here = Path(__file__).parents[1]
    for path in sorted(here.rglob("*.py")):
        digest.update(f"{path.relative_to(here)} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _SUFFIXES:
            digest.update(f"{path.relative_to(folder)} ".encode())
            for part in _parts(path):
                digest.update(part)
    return digest.hexdigest()


def read(digest: str) -> dict[str, Any] | None:
    """Return the proof under that digest, if there is one."""
    with suppress(OSError, ValueError):
        document = json.loads((_folder() / digest).read_text(encoding="utf-8"))
        return document if isinstance(document, dict) else None
    return None


def keep(digest: str, proof: dict[str, Any]) -> None:
    """Write the proof; where that fails, the next replica proves it again."""
    with suppress(OSError), tempfile.NamedTemporaryFile("w", dir=_folder(), encoding="utf-8") as file:
        json.dump(proof, file)
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, _folder() / digest)


def _folder() -> Path:
    folder = own_folder() / "proofs"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _parts(path: Path) -> Iterator[bytes]:
    status = path.stat()
    with path.open("rb") as file:
        yield file.read(_SAMPLE)
        if status.st_size > _SAMPLE:
            yield f"{status.st_size} {status.st_mtime_ns}".encode()
            file.seek(-_SAMPLE, os.SEEK_END)
            yield file.read(_SAMPLE)


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {torch.version.cuda}"
    return f"{platform.machine()} {sorted(torch.cpu.get_capabilities().items())}"
