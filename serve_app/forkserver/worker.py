"""Turn a forked child into the worker: it takes over everything from the process that Ray has started."""

import gc
import os
import runpy
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from serve_app.forkserver.wire import WorkerRequest

# Random generators, by module, that Python does not reseed after a fork.
_GENERATORS: Final[dict[str, Callable[[Any], object]]] = {
    "numpy": lambda numpy: numpy.random.seed(),
    "torch": lambda torch: torch.default_generator.seed(),
}


class Fork(NamedTuple):
    """What a forked child works with: the request, the streams, and the connection for its answer."""

    request: WorkerRequest
    streams: list[int]
    connection: socket.socket


def become_worker(fork: Fork, foreign_variables: Iterable[str]) -> None:
    """Turn this forked process into the worker; return when the worker has ended.

    `foreign_variables` are removed from the environment unless the request has them.
    """
    request = fork.request
    # Ray kills a worker by its process group.
    os.setpgid(0, 0)
    for target, stream in enumerate(fork.streams):
        os.dup2(stream, target)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(request.folder)
    for name in set(foreign_variables) - request.environment.keys():
        os.environ.pop(name, None)
    os.environ.update(request.environment)
    os.setpriority(os.PRIO_PROCESS, 0, max(request.niceness, os.getpriority(os.PRIO_PROCESS, 0)))
    _raise_oom_score(request.oom_score)
    reseed()
    try:
        fork.connection.sendall(str(os.getpid()).encode())
    except OSError:
        # The client no longer waits and has started the worker itself.
        os._exit(1)
    fork.connection.close()
    gc.enable()
    sys.argv = list(request.command)
    sys.path[0] = str(Path(request.command[0]).parent)
    runpy.run_path(request.command[0], run_name="__main__")


def reseed() -> None:
    """Seed the random generators of this process, so that it does not repeat its siblings' numbers."""
    for module, seed in _GENERATORS.items():
        if module in sys.modules:
            seed(sys.modules[module])


def _raise_oom_score(score: int) -> None:
    own = Path("/proc/self/oom_score_adj")
    if int(own.read_text()) < score:
        own.write_text(str(score))
