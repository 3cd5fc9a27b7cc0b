"""The threads in which torch runs one forward pass."""

import os
from contextlib import suppress
from typing import Final

import torch

# Elements of which torch gives each thread of an operation at least one share.
_SHARE: Final = 32768


def granted_threads() -> int:
    """Return as many as Ray has granted; torch itself looks only while it is imported."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    return int(granted) if granted.isdecimal() and int(granted) > 0 else torch.get_num_threads()


def use_threads(count: int) -> None:
    """Let this thread's forward passes run in `count` threads, itself among them.

    If these are as many as there are cores, this thread stays on the first core and the others on the rest.
    Each operation ends with the threads waiting for each other, actively; if the system has put two on one
    core, because another one was busy for a moment, one waits for what cannot run meanwhile.
    """
    torch.set_num_threads(count)
    with suppress(AttributeError, OSError):
        first, *others = sorted(os.sched_getaffinity(0))
        if count == 1 + len(others) > 1:
            # Threads start where the one that makes them may run, and the first operation makes them.
            os.sched_setaffinity(0, others)
            torch.zeros(count * _SHARE).add_(1)
            os.sched_setaffinity(0, [first])
