"""Let the processes of one machine that made the same weights hold them once.

Weights that a replica has converted or put in another order are its own, though each replica of the model
makes the same. So they are written to a file, and what is mapped from it takes their place. The file is named
by its content, is compared before it is used, and is removed when no process holds a lock on it any more.
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

from serve_app.encoders.onednn import OneDnnLayer, ordered_at, ordered_memory

# Bytes at whose multiples tensors begin in a file, as torch aligns them in memory.
_ALIGNMENT: Final = 64

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")

_ATTEMPTS: Final = 3

# oneDNN's tensors do not keep the memory that they are in; a process keeps its model to its end.
_mappings: list[mmap.mmap] = []


def share_weights(model: torch.nn.Module, folder: Path | None = None) -> None:
    """Share the parameters of `model`, and the weights of the `OneDnnLayer`s below it.

    A process that writes to them has its own copy again. The file is in `folder`, by default one of this
    user's for temporary files. If that fails, the log says why, and the weights stay as they are.
    """
    linears = [module for module in model.modules() if isinstance(module, OneDnnLayer)]
    others = [each for each in model.parameters() if each.is_contiguous() and each.numel()]
    contents = [_bytes_at(*ordered_memory(linear.weight)) for linear in linears]
    contents += [_bytes_at(each.data_ptr(), each.nbytes) for each in others]
    if not contents:
        return
    offsets = iter(_offsets(contents))
    try:
        mapping = _mapping(contents, folder or _own_folder())
        _mappings.append(mapping)
        start = ctypes.addressof(ctypes.c_ubyte.from_buffer(mapping))
        weights = [ordered_at(start + next(offsets), linear.weight) for linear in linears]
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
    """Give back to the system what the weights lay in; glibc keeps what is between other pieces of memory."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _own_folder() -> Path:
    """Return a folder that is this user's alone; raise OSError if it is not."""
    folder = Path(tempfile.gettempdir()) / f"model-endpoints-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} must be this user's alone")
    return folder


def _bytes_at(address: int, size: int) -> Any:
    """Return `size` bytes of memory, not copied, as an object with a buffer."""
    return (ctypes.c_ubyte * size).from_address(address)


def _offsets(contents: Sequence[Any]) -> list[int]:
    """Return where each content begins in the file, and in the end where the file ends."""
    offsets = [0]
    for content in contents:
        offsets.append(offsets[-1] + -(-len(content) // _ALIGNMENT) * _ALIGNMENT)
    return offsets


def _mapping(contents: Sequence[Any], folder: Path) -> mmap.mmap:
    """Map the file in `folder` with these contents, which is written if it is not there."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    path = folder / digest.hexdigest()
    _remove_unused(other for other in folder.iterdir() if other != path)
    size = _offsets(contents)[-1]
    for _ in range(_ATTEMPTS):
        # Another process may remove it until it is locked.
        with suppress(FileNotFoundError):
            if not path.exists():
                _write(contents, path)
            with path.open("rb") as file:
                # The mapping has a descriptor of its own for the same open file, and so keeps the lock.
                fcntl.flock(file, fcntl.LOCK_SH)
                there = path.stat()
                if not os.path.samestat(os.fstat(file.fileno()), there):
                    continue
                if there.st_size == size:
                    mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
                    if _holds(mapping, contents):
                        return mapping
                # A machine that went down may have left half of it.
                path.unlink()
    raise OSError(f"{path} does not keep what is written to it")


def _remove_unused(paths: Iterable[Path]) -> None:
    """Remove the files that no process has locked."""
    for path in paths:
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _write(contents: Sequence[Any], path: Path) -> None:
    """Write the file, which others see when it is complete; one that came first stays."""
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
    """Return whether the file is what would be written."""
    for start, content in zip(_offsets(contents), contents, strict=False):
        there = torch.frombuffer(mapping, dtype=torch.uint8, count=len(content), offset=start)
        if not torch.equal(there, torch.frombuffer(content, dtype=torch.uint8)):
            return False
    return True
