"""What the starting worker and the fork server say to each other; imports only what is quick to import.

One request on one connection: a length, JSON, and the three standard streams as descriptors. The answer
is the new process's number as text.
"""

import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

# What Ray sets anew for each worker. A worker whose environment differs in anything else may have to
# import differently, so it is not forked.
_PER_WORKER: Final = frozenset({"RAY_JOB_ID"})

_LENGTH: Final = struct.Struct("!I")
_STREAMS: Final = (0, 1, 2)


@dataclass(frozen=True)
class WorkerRequest:
    """A process that Ray has asked for: its command line, and what it inherits."""

    command: list[str]
    environment: dict[str, str]
    folder: str
    niceness: int
    oom_score: int

    @property
    def worker(self) -> str:
        """Ray's identifier of the worker, for messages."""
        return next((text for text in self.command if text.startswith("--worker-id=")), "a worker")


def same_imports(one: dict[str, str], other: dict[str, str]) -> bool:
    """Return whether processes with these environments import the same modules in the same way."""
    return _lasting(one) == _lasting(other)


def _lasting(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _PER_WORKER}


def send(connection: socket.socket, request: WorkerRequest) -> None:
    """Send `request` with this process's standard streams."""
    body = json.dumps(vars(request)).encode()
    socket.send_fds(connection, [_LENGTH.pack(len(body))], _STREAMS)
    connection.sendall(body)


def receive(connection: socket.socket) -> tuple[WorkerRequest, list[int]]:
    """Return a request and the descriptors of its streams; raise ValueError if it is incomplete."""
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
