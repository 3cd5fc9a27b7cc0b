"""The messages between a starting worker and the fork server. Imports only the standard library.

Each connection has one request: a length, JSON, and the three standard streams as descriptors. The answer is
the new process's id as text.
"""

import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

# Variables that Ray sets for each worker. If any other variable differs, imports may have other effects, so
# the worker is not forked.
_PER_WORKER: Final = frozenset({"RAY_JOB_ID"})

_LENGTH: Final = struct.Struct("!I")
_STREAMS: Final = (0, 1, 2)


@dataclass(frozen=True)
class WorkerRequest:
    """A worker that Ray has started: its command line, and what it inherits from the raylet."""

    command: list[str]
    environment: dict[str, str]
    folder: str
    niceness: int
    oom_score: int

    @property
    def worker(self) -> str:
        """Ray's identifier of the worker, for log messages."""
        return next((text for text in self.command if text.startswith("--worker-id=")), "a worker")


def same_imports(one: dict[str, str], other: dict[str, str]) -> bool:
    """Return whether imports have the same effects in processes with these environments."""
    return _lasting(one) == _lasting(other)


def _lasting(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _PER_WORKER}


def send(connection: socket.socket, request: WorkerRequest) -> None:
    """Send `request` and the standard streams of this process."""
    body = json.dumps(vars(request)).encode()
    socket.send_fds(connection, [_LENGTH.pack(len(body))], _STREAMS)
    connection.sendall(body)


def receive(connection: socket.socket) -> tuple[WorkerRequest, list[int]]:
    """Return a request and the descriptors of its streams. Raise ValueError if it is incomplete."""
    head, streams, _, _ = socket.recv_fds(connection, _LENGTH.size, len(_STREAMS))
    try:
        (length,) = _LENGTH.unpack(head)
        with connection.makefile("rb") as body:
            fields: dict[str, Any] = json.loads(body.read(length))
        if len(streams) != len(_STREAMS):
            raise ValueError("a worker came without its standard streams")
        return WorkerRequest(**fields), list(streams)
    except (struct.error, TypeError, ValueError) as error:
        for stream in streams:
            os.close(stream)
        raise ValueError(f"not a request for a worker: {error}") from error
