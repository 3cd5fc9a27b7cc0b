"""The fork server of a node: imports once what all workers need, then forks the workers from itself.

A forked worker skips these imports and shares their memory with the others. Until the fork there is one
thread, no connection to Ray and no CUDA, because none of these survives a fork.
"""

import gc
import logging
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from serve_app.contract import FORK_WORKERS_VARIABLE, ForkWorkers
from serve_app.forkserver.preload import MODEL_MODULES, SERVE_MODULES, has_own_ids, preload, ray_ids_untouched
from serve_app.forkserver.wire import receive, same_imports
from serve_app.forkserver.worker import Fork, become_worker

# Variables for the imports in this process; workers do not inherit them. The first stops numpy's OpenBLAS
# from starting threads. With the second, torch asks NVML for devices, which does not start CUDA.
HERE_ONLY: Final = {"OPENBLAS_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}

_BACKLOG: Final = 128

logger = logging.getLogger(__name__)


class ForkServer:
    """Answers requests on one socket until the raylet ends."""

    def __init__(self, listener: socket.socket, raylet: int, environment: dict[str, str]) -> None:
        self._listener = listener
        self._environment = environment
        self._raylet = os.pidfd_open(raylet)

    def serve(self, *, successor: int | None = None, predecessor: int | None = None) -> Fork | None:
        """Fork a worker for each request. Return in each child with its request, and in the server with None.

        `successor` and `predecessor` are the ends of a pipe between two servers with the same socket. Once
        the successor writes that it serves, this server pauses until the successor dies.
        """
        poll = select.poll()
        for descriptor in filter(None, (self._listener.fileno(), self._raylet, successor)):
            poll.register(descriptor, select.POLLIN)
        while self._raylet not in (ready := {descriptor for descriptor, _ in poll.poll()}):
            if successor is not None and successor in ready:
                if os.read(successor, 1):
                    poll.unregister(self._listener)
                    continue
                logger.error(
                    "the process with the models' modules has ended; workers are forked without them"
                )
                poll.unregister(successor)
                poll.register(self._listener, select.POLLIN)
            elif fork := self._answer():
                for descriptor in filter(None, (self._raylet, successor, predecessor)):
                    os.close(descriptor)
                self._listener.close()
                return fork
        return None

    def _answer(self) -> Fork | None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            # The successor has accepted it first.
            return None
        connection.setblocking(True)
        try:
            request, streams = receive(connection)
        except (OSError, ValueError) as error:
            logger.warning("%s", error)
            connection.close()
            return None
        child = os.fork() if same_imports(request.environment, self._environment) else None
        if child == 0:
            return Fork(request, streams, connection)
        logger.info("%s: process %s", request.worker, child or "not forked, it has settings of its own")
        for stream in streams:
            os.close(stream)
        connection.close()
        return None


def listen(address: str) -> socket.socket:
    """Return a listening socket to which only this user can connect."""
    Path(address).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    previous = os.umask(0o077)
    listener.bind(address)
    os.umask(previous)
    listener.listen(_BACKLOG)
    # Two processes poll it while the successor takes over.
    listener.setblocking(False)
    return listener


def _serve(address: str) -> Fork | None:
    """Serve with Serve's own modules first, and with the models' modules later; return like `serve`."""
    server = ForkServer(listen(address), int(os.environ["RAY_RAYLET_PID"]), dict(os.environ))
    for name, value in HERE_ONLY.items():
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.disable()
    with ray_ids_untouched():
        preload(SERVE_MODULES)
        if not has_own_ids():
            logger.error("workers forked here would draw the same identifiers; each has to start by itself")
            return None
        if os.environ[FORK_WORKERS_VARIABLE] != ForkWorkers.MODELS:
            return server.serve()
        reader, writer = os.pipe()
        # The import of torch takes seconds, and Serve's own actors must not wait for it.
        if os.fork():
            os.close(writer)
            return server.serve(successor=reader)
        os.close(reader)
        preload(MODEL_MODULES)
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        # Of the threads, a forked child has only the one that forks, and locks of the others for ever.
        logger.error("the models' modules have started %d threads; workers must not be forked", threads - 1)
        return None
    gc.collect()
    gc.freeze()
    logger.info("ready")
    os.write(writer, b"1")
    return server.serve(predecessor=writer)


def main() -> None:
    """Serve at the address in the first argument; the second is the descriptor of the server's lock."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    fork = _serve(sys.argv[1])
    if fork is None:
        # Some extension modules print long messages at a regular exit.
        os._exit(0)
    os.close(int(sys.argv[2]))
    become_worker(fork, HERE_ONLY)


if __name__ == "__main__":
    main()
