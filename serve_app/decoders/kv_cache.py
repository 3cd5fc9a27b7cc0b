"""The memory for keys and values: places of equal size, of which only what is used takes memory."""

import math
import mmap
from contextlib import suppress
from typing import Any, Final

import torch

# The part of an accelerator's free memory that the cache may take: at once, when the model is loaded.
_SHARE: Final = 0.5

# Linux has it; Python names it only from 3.13 on.
_NO_RESERVE: Final = 0x4000


def affordable_places(most: int, numbers: int, model: Any) -> int:
    """Return for how many places of so many `numbers` the device of `model` has memory, up to `most`."""
    if model.device.type == "cpu":
        return most
    free, _ = torch.cuda.mem_get_info(model.device)
    affordable = int(free * _SHARE) // int(numbers * model.dtype.itemsize)
    return max(1, min(most, affordable))


class KeyValueCache:
    """`tensor` is (places, layers, 2, heads, capacity, width), keys before values.

    On a processor the system gives memory to a page when it is first written, and `release` takes it back; a
    page without memory reads as zeros. On an accelerator all memory is taken at once.
    """

    def __init__(
        self,
        places: int,
        layers: int,
        heads: int,
        capacity: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (places, layers, 2, heads, capacity, width)
        self.bytes_per_token = layers * 2 * heads * width * dtype.itemsize
        self._place_bytes = self.bytes_per_token * capacity
        self._memory: mmap.mmap | None = None
        if device.type == "cpu":
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
            self._memory = mmap.mmap(-1, places * self._place_bytes, flags=flags)
            with suppress(OSError):
                # Where the kernel would give 2 MiB at a time, a few tokens would take a whole place.
                self._memory.madvise(mmap.MADV_NOHUGEPAGE)
            flat = torch.frombuffer(self._memory, dtype=dtype, count=math.prod(shape))
            self.tensor = flat.view(shape)
        else:
            self.tensor = torch.zeros(shape, dtype=dtype, device=device)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` tokens of a place into another one."""
        self.tensor[target, :, :, :, :tokens] = self.tensor[source, :, :, :, :tokens]

    def release(self, place: int, known: int = 0) -> None:
        """Give the memory of a place back to the system, but that of its first `known` tokens."""
        if self._memory is None:
            self.tensor[place, :, :, :, known:] = 0
            return
        if not known:
            self._give_back(place * self._place_bytes, self._place_bytes)
            return
        _, layers, kinds, heads, capacity, width = self.tensor.shape
        token = width * self.tensor.element_size()
        for row in range(layers * kinds * heads):
            begin = place * self._place_bytes + (row * capacity + known) * token
            self._give_back(begin, (capacity - known) * token)

    def _give_back(self, begin: int, size: int) -> None:
        """Let `size` bytes be zeros: whole pages without memory, and the rest of pages that others share."""
        assert self._memory is not None
        end = begin + size
        first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)
        else:
            first = last = end
        # What has been no number would make the sums of others none, although it counts nothing in them.
        self._memory[begin:first] = bytes(first - begin)
        self._memory[last:end] = bytes(end - last)
