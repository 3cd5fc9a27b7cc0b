"""The threads that run a model: all cores for one batch, one core each for several."""

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor


class Streams:
    """Threads for up to `count` batches at a time; OpenVINO calls these streams.

    The threads of one forward pass synchronise after every operation, by spinning, and lose much time where
    they share cores. Separate batches never synchronise. So only an exclusive batch, one that runs while
    nothing else is queued, gets several threads. Each new thread first calls `prepare(exclusive)`.

    With `side`, there is one more thread, for small batches beside large ones that have all streams.
    """

    def __init__(
        self,
        count: int = 1,
        prepare: Callable[[bool], object] = lambda exclusive: None,
        *,
        side: bool = False,
    ) -> None:
        self.count = count
        self.side = ThreadPoolExecutor(1, "forward-side", prepare, (False,)) if side else None
        self._exclusive = ThreadPoolExecutor(1, "forward", prepare, (True,))
        self._shared = ThreadPoolExecutor(count, "forward-shared", prepare, (False,))

    def executor(self, *, exclusive: bool) -> Executor:
        """Return the threads of an exclusive batch, or of batches that share the cores."""
        return self._exclusive if exclusive or self.count == 1 else self._shared

    def close(self) -> None:
        """Refuse further batches; do not wait for running ones."""
        for executor in filter(None, (self._exclusive, self._shared, self.side)):
            executor.shutdown(wait=False, cancel_futures=True)
