"""Share equal weights between the processes of one machine.

Weights that a replica has converted or prepacked are in its own memory, although every replica of the model
makes the same ones. So the first replica writes them to a file, and all replicas map that file instead. The
file is named by its content, is compared with the weights before it is used, and is removed once no process
holds a lock on it.
"""

import ctypes
import fcntl
import hashlib
import logging
import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch

from serve_app.encoders.onednn import OneDnnLayer, can_share_prepacked, from_prepacked, prepacked_buffer

# Tensors begin at multiples of this many bytes in the file, as they do in torch's memory.
_ALIGNMENT: Final = 64

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")

_ATTEMPTS: Final = 3

# oneDNN's tensors do not own the memory that they are in, so the mappings live as long as the process.
_mappings: list[mmap.mmap] = []


def share_weights(model: torch.nn.Module, folder: Path | None = None) -> None:
    """Share the parameters of `model` and the prepacked weights of its `OneDnnLayer`s.

    A process that writes to a shared weight gets a copy of its own. The file is in `folder`, by default in a
    folder of this user for temporary files. If sharing fails, the log says why and the weights stay private.
    """
    linears = [
        module for module in model.modules() if isinstance(module, OneDnnLayer) and can_share_prepacked()
    ]
    others = [each for each in model.parameters() if each.is_contiguous() and each.numel()]
    contents = [_bytes_at(*prepacked_buffer(linear.weight)) for linear in linears]
    contents += [_bytes_at(each.data_ptr(), each.nbytes) for each in others]
    if not contents:
        return
    offsets = iter(_offsets(contents))
    try:
        mapping = _mapping(contents, folder or own_folder())
        _mappings.append(mapping)
        start = ctypes.addressof(ctypes.c_ubyte.from_buffer(mapping))
        weights = [from_prepacked(start + next(offsets), linear.weight) for linear in linears]
    except (OSError, AttributeError) as error:
        logger.warning("this replica shares no weights with others: %s", error)
        return
    for linear, weight in zip(linears, weights, strict=True):
        linear.weight = weight
    for each in others:
        flat = torch.frombuffer(mapping, dtype=each.dtype, count=each.numel(), offset=next(offsets))
        each.data = flat.view(each.shape)
    _return_freed_memory()


def _return_freed_memory() -> None:
    """Give the memory of the private copies back to the system; glibc keeps what lies between blocks."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def own_folder() -> Path:
    """Return a folder that only this user can read; raise OSError if others can."""
    folder = Path(tempfile.gettempdir()) / f"model-endpoints-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} must be this user's alone")
    return folder


def _bytes_at(address: int, size: int) -> Any:
    """Return `size` bytes of memory as an object with a buffer, without a copy."""
    return (ctypes.c_ubyte * size).from_address(address)


def _offsets(contents: Sequence[Any]) -> list[int]:
    """Return where in the file each content begins, and at the end where the file ends."""
    offsets = [0]
    for content in contents:
        offsets.append(offsets[-1] + -(-len(content) // _ALIGNMENT) * _ALIGNMENT)
    return offsets


def _mapping(contents: Sequence[Any], folder: Path) -> mmap.mmap:
    """Map the file in `folder` that has these contents; write it first if it is missing."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    path = folder / digest.hexdigest()
    _remove_unused(other for other in folder.iterdir() if other != path)
    size = _offsets(contents)[-1]
    for _ in range(_ATTEMPTS):
        # Until the file is locked, another process may remove it.
        with suppress(FileNotFoundError):
            if not path.exists():
                _write(contents, path)
            with path.open("rb") as file:
                # The mapping duplicates the descriptor, so it keeps the lock when `file` is closed.
                fcntl.flock(file, fcntl.LOCK_SH)
                there = path.stat()
                if not os.path.samestat(os.fstat(file.fileno()), there):
                    continue
                if there.st_size == size:
                    mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
                    if _holds(mapping, contents):
                        return mapping
                # After a crash of the machine, half of the file may be missing.
                path.unlink()
    raise OSError(f"{path} does not keep what is written to it")


def _remove_unused(paths: Iterable[Path]) -> None:
    """Remove the files that no process has locked."""
    for path in paths:
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _write(contents: Sequence[Any], path: Path) -> None:
    """Write the file, which others see once it is complete; if another process was first, its file stays."""
    *starts, end = _offsets(contents)
    with tempfile.NamedTemporaryFile(dir=path.parent) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for start, content in zip(starts, contents, strict=True):
            file.seek(start)
            file.write(content)
        file.truncate(end)
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, path)


def _holds(mapping: mmap.mmap, contents: Sequence[Any]) -> bool:
    """Return whether the file has these contents."""
    for start, content in zip(_offsets(contents), contents, strict=False):
        there = torch.frombuffer(mapping, dtype=torch.uint8, count=len(content), offset=start)
        if not torch.equal(there, torch.frombuffer(content, dtype=torch.uint8)):
            return False
    return True
