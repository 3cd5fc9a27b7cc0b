"""Lines for whoever collects logs, written by a thread of their own.

Ray keeps the standard output of its workers in files, where no collector of logs looks. So an environment
variable says where the lines go: on a cluster the standard output of the container, on one machine a FIFO of
the command `modelendpoint run`.
"""

import fcntl
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from serve_app.contract import LINES_VARIABLE

MAX_LINES: Final = 10_000
MAX_BYTES: Final = 16 * 2**20
# How often it is said that lines are dropped.
REPORT_SECONDS: Final = 60.0

_STANDARD_OUTPUT: Final = 1
# Without O_NONBLOCK, a FIFO that nobody reads would hold up the thread for ever.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC

logger = logging.getLogger("ray.serve")


def _nothing(lines: int) -> None:
    pass


class LineWriter:
    """Writes the lines of one log. What its queue has no room for is dropped, and counted.

    A collector that does not read holds up this thread and nobody else. `on_drop` is called with a number of
    lines, in any thread.
    """

    def __init__(
        self,
        name: str,
        on_drop: Callable[[int], None] = _nothing,
        *,
        max_lines: int = MAX_LINES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.dropped = 0
        self._name = name
        self._on_drop = on_drop
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._queue: deque[tuple[int, Callable[[], bytes]]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._reported = -REPORT_SECONDS
        self._output: int | None = None

    def put(self, size: int, make: Callable[[], bytes]) -> None:
        """Write the line that `make` returns, without its line break; `size` is about how many bytes it has.

        Never blocks and never raises; `make` is called in the writer's thread.
        """
        with self._changed:
            full = len(self._queue) >= self._max_lines or self._bytes + size > self._max_bytes
            if not full and not self._closed:
                self._queue.append((size, make))
                self._bytes += size
                self._changed.notify()
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()
                return
        self._drop(1)

    def close(self, seconds: float) -> None:
        """Write what is queued, for so long at most, and nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                taken, self._queue = self._queue, deque()
            lines = [line for _, make in taken if (line := self._made(make)) is not None]
            try:
                self._write(b"".join(lines))
            except OSError as error:
                self._close_output()
                self._drop(len(lines), error)
            with self._changed:
                # Counted until they are written, because they are in memory until then.
                self._bytes -= sum(size for size, _ in taken)

    def _made(self, make: Callable[[], bytes]) -> bytes | None:
        try:
            return make() + b"\n"
        except Exception as error:
            self._drop(1, error)
            return None

    def _write(self, data: bytes) -> None:
        if self._output is None:
            self._output = _opened(self._name)
        # Replicas write to one pipe, which keeps only 4096 bytes together.
        with suppress(OSError):
            fcntl.flock(self._output, fcntl.LOCK_EX)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._output, rest) :]
        finally:
            with suppress(OSError):
                fcntl.flock(self._output, fcntl.LOCK_UN)

    def _close_output(self) -> None:
        if self._output is not None:
            with suppress(OSError):
                os.close(self._output)
            self._output = None

    def _drop(self, lines: int, error: Exception | None = None) -> None:
        now = time.monotonic()
        with self._changed:
            self.dropped += lines
            is_due = now - self._reported >= REPORT_SECONDS
            if is_due:
                self._reported = now
        self._on_drop(lines)
        if is_due:
            because = "its queue is full" if error is None else f"they cannot be written: {error}"
            logger.warning(
                "the %s has dropped %d lines since the start: %s", self._name, self.dropped, because
            )


def _opened(name: str) -> int:
    """Return a descriptor of what the variable names, or of this process's own standard output."""
    path = os.environ.get(LINES_VARIABLE)
    if path:
        try:
            output = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            logger.warning(
                "%s names %s, which cannot be opened (%s); the %s is in this replica's own standard output",
                LINES_VARIABLE,
                path,
                error.strerror,
                name,
            )
        else:
            os.set_blocking(output, True)
            return output
    return os.dup(_STANDARD_OUTPUT)
