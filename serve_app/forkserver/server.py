"""The fork server of a node: imports once what all workers need, and forks each worker off itself.

A forked worker has its imports behind it and shares their memory. Up to the fork there is one thread, no
connection to Ray and no CUDA: each would be broken in the children.
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

# Settings of the imports here that the workers do not inherit. One thread up to the fork: numpy's OpenBLAS
# would start its own. And NVML says which devices there are without starting CUDA.
HERE_ONLY: Final = {"OPENBLAS_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}

_BACKLOG: Final = 128

logger = logging.getLogger(__name__)


class ForkServer:
    """Answers requests on one socket for as long as the raylet lives."""

    def __init__(self, listener: socket.socket, raylet: int, environment: dict[str, str]) -> None:
        self._listener = listener
        self._environment = environment
        self._raylet = os.pidfd_open(raylet)

    def serve(self, *, successor: int | None = None, predecessor: int | None = None) -> Fork | None:
        """Fork a worker for each request; return in each child with its request, in the server at its end.

        A successor is another server with the same socket, known by a pipe: once it says that it serves,
        this one rests until the other dies. `predecessor` is the other end of that pipe.
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
            # The successor was quicker.
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
    """Return a socket that only this user can connect to."""
    Path(address).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    previous = os.umask(0o077)
    listener.bind(address)
    os.umask(previous)
    listener.listen(_BACKLOG)
    # Two processes wait on it while one follows the other.
    listener.setblocking(False)
    return listener


def _serve(address: str) -> Fork | None:
    """Serve first with what Serve's own actors need, then with all; return as `ForkServer.serve` does."""
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
        # Importing torch takes seconds; Serve's own actors must not wait for that.
        if os.fork():
            os.close(writer)
            return server.serve(successor=reader)
        os.close(reader)
        preload(MODEL_MODULES)
    gc.collect()
    gc.freeze()
    logger.info("ready, with %d thread(s)", len(os.listdir("/proc/self/task")))
    os.write(writer, b"1")
    return server.serve(predecessor=writer)


def main() -> None:
    """Serve at the address of the first argument; the second is the descriptor that is the server's lock."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    fork = _serve(sys.argv[1])
    if fork is None:
        # Some extension modules complain at length about an orderly end.
        os._exit(0)
    os.close(int(sys.argv[2]))
    become_worker(fork, HERE_ONLY)


if __name__ == "__main__":
    main()
