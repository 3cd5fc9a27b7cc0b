"""Weights that stay what they were when a person overwrites the file that they were loaded from.

transformers maps safetensors into memory. A mapped file that gets shorter kills the process that reads beyond
its end (SIGBUS), and one that gets other contents silently changes the model. So weights move to a file of
this user, which replicas share, or to private memory if that is not possible.
"""

from itertools import chain
from pathlib import Path
from typing import Any, Final

from serve_app.encoders.shared_weights import share_weights

_MAPS: Final = Path("/proc/self/maps")


def own_weights(model: Any) -> None:
    """Take the weights of `model`, which is in CPU memory, out of mapped *.safetensors files.

    Files of the hub's cache stay mapped: they are named by their contents, so nobody overwrites them.
    """
    if _in_mapped_files(model):
        share_weights(model)
    for tensor in _in_mapped_files(model):
        tensor.data = tensor.data.clone()


def _in_mapped_files(model: Any) -> list[Any]:
    """Return the parameters and buffers of `model` that are in mapped files; packed weights are in none."""
    spans = _mapped_files()
    return [
        tensor
        for tensor in chain(model.parameters(), model.buffers())
        if not tensor.is_mkldnn and any(first <= tensor.data_ptr() < end for first, end in spans)
    ]


def _mapped_files() -> list[tuple[int, int]]:
    """Return the addresses, each from the first to the one behind the last, of mapped *.safetensors files."""
    spans = []
    for line in _MAPS.read_text().splitlines() if _MAPS.exists() else ():
        span, *_, name = line.split(maxsplit=5)
        if name.endswith(".safetensors"):
            first, end = (int(each, 16) for each in span.split("-"))
            spans.append((first, end))
    return spans
