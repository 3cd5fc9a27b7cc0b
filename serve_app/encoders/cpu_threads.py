"""The number of CPU threads of a forward pass, and the cores that they run on."""

import os
from contextlib import suppress
from typing import Final

import torch

# torch starts a further thread for an operation only if each thread gets this many elements.
_SHARE: Final = 32768


def granted_threads() -> int:
    """Return the number of threads that Ray has granted; torch reads it only while it is imported."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    return int(granted) if granted.isdecimal() and int(granted) > 0 else torch.get_num_threads()


def use_threads(count: int) -> None:
    """Run the forward passes of this thread in `count` threads, this one included.

    With as many threads as cores, this thread is pinned to the first core and the others to the rest. At the
    end of each operation the threads spin until all are done. If the system has put two of them on one core,
    one spins on the core that the other needs.
    """
    torch.set_num_threads(count)
    with suppress(AttributeError, OSError):
        first, *others = sorted(os.sched_getaffinity(0))
        if count == 1 + len(others) > 1:
            # The first operation starts the threads, on the cores that this thread may use at that moment.
            os.sched_setaffinity(0, others)
            torch.zeros(count * _SHARE).add_(1)
            os.sched_setaffinity(0, [first])
