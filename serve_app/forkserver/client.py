"""Hand a starting Ray worker over to the node's fork server. Imports only the standard library.

`start.pth` makes Python call `start` first in every process where the fork server is switched on. In a
process that is no Ray worker, or if anything fails, `start` returns and the process goes on as usual.
"""

import fcntl
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from serve_app.forkserver.wire import WorkerRequest, send

_WORKER_SCRIPT: Final = "/ray/_private/workers/default_worker.py"
_RAYLET: Final = "--raylet-name="

# Ray gives up on a worker that has not registered after 60 seconds. If forking fails, some of these seconds
# are needed to start the worker the usual way.
PATIENCE_SECONDS: Final = 40.0
_RETRY_SECONDS: Final = 0.02

_started: list[bool] = []


def start() -> None:
    """Let the fork server fork the worker that this process would become, then exit; else return."""
    # Python reads start.pth once for each name of its library folder.
    if _started:
        return
    _started.append(True)
    command = worker_command(sys.orig_argv)
    if command is None:
        return
    try:
        forked = _fork(command)
    except (OSError, ValueError):
        return
    if forked:
        os._exit(0)


def worker_command(command: Sequence[str]) -> list[str] | None:
    """Return the script of Ray's worker with its arguments; None if `command` starts something else."""
    script = next((number for number, text in enumerate(command) if text.endswith(_WORKER_SCRIPT)), None)
    if script is None or not _raylet_of(command[script:]):
        return None
    return list(command[script:])


def _raylet_of(arguments: Sequence[str]) -> str:
    return next((text.removeprefix(_RAYLET) for text in arguments if text.startswith(_RAYLET)), "")


def _fork(command: Sequence[str]) -> bool:
    """Return whether the fork server has forked the worker."""
    request = WorkerRequest(
        command=list(command),
        environment=dict(os.environ),
        folder=os.getcwd(),
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
        oom_score=int(Path("/proc/self/oom_score_adj").read_text()),
    )
    connection = _connect(f"{_raylet_of(command)}.f")
    if connection is None:
        return False
    with connection:
        send(connection, request)
        try:
            answer = connection.recv(32)
        except TimeoutError:
            # A server that now finds the connection closed forks nothing. But its answer may have been on
            # the way already.
            connection.shutdown(socket.SHUT_RDWR)
            answer = connection.recv(32)
        return bool(answer)


def _connect(address: str) -> socket.socket | None:
    """Return a connection to the fork server. Start it if there is none; return None if that fails."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    started = False
    while time.monotonic() < deadline:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(PATIENCE_SECONDS)
            connection.connect(address)
        except OSError:
            connection.close()
        else:
            return connection
        lock = _lock(f"{address}.lock")
        if lock is not None:
            if started:
                os.close(lock)
                return None
            _start_server(address, lock)
            started = True
        time.sleep(_RETRY_SECONDS)
    return None


def _lock(path: str) -> int | None:
    """Take the lock that a running fork server holds; return None if there is such a server."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _start_server(address: str, lock: int) -> None:
    """Become the fork server, and return in a child process.

    So the fork server is a child of the raylet, and all workers remain descendants of the raylet. The server
    holds the lock until it ends.
    """
    if os.fork() == 0:
        os.close(lock)
        return
    log = os.open(_log_file(address), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for target, source in enumerate((null, log, log)):
        os.dup2(source, target)
    os.set_inheritable(lock, True)
    # The last argument is room for the process titles that Ray sets.
    command = [sys.executable, "-m", "serve_app.forkserver.server", address, str(lock), "-" * 200]
    os.execv(sys.executable, command)


def _log_file(address: str) -> str:
    """Return a file beside Ray's logs, if the address is in Ray's folder of sockets."""
    logs = Path(address).parent.parent / "logs"
    return str(logs / "fork_server.log") if logs.is_dir() else os.devnull
