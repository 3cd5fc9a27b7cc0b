"""Progress on the terminal: one line per step, with its seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Write = Callable[[str], object]


def to_stderr(text: str) -> None:
    """Write progress where it does not mix with results."""
    print(text, end="", file=sys.stderr, flush=True)


@contextmanager
def step(title: str, write: Write = to_stderr) -> Iterator[None]:
    """Write `title` when the block starts and its seconds when it ends."""
    started = time.monotonic()
    write(f"{title} ... ")
    try:
        yield
    finally:
        write(f"{time.monotonic() - started:.0f} s\n")
