"""The threads in which a model runs: all of its cores for a lone batch, one for each of several."""

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor


class Streams:
    """Threads for `count` batches at a time.

    Several threads of one batch wait for each other after each of its operations, actively, and lose much
    where they must share their cores; batches side by side never wait. So a batch gets several threads only
    if nothing else waits, and then nothing runs beside it. `prepare` is called first in each thread, with
    whether its batches run alone.
    """

    def __init__(self, count: int = 1, prepare: Callable[[bool], object] = lambda exclusive: None) -> None:
        self.count = count
        self._exclusive = ThreadPoolExecutor(1, "forward", prepare, (True,))
        self._shared = ThreadPoolExecutor(count, "forward-shared", prepare, (False,))

    def executor(self, *, exclusive: bool) -> Executor:
        """Return where a batch runs that is the only one, or that is not."""
        return self._exclusive if exclusive or self.count == 1 else self._shared

    def close(self) -> None:
        """Take no more batches; running ones are not waited for."""
        for executor in (self._exclusive, self._shared):
            executor.shutdown(wait=False, cancel_futures=True)
