"""Ports for servers that start in a moment."""

import random
import socket
from contextlib import suppress

# The system gives ports above to whoever asks for any, Ray those below to its workers: theirs would be free
# now and taken when the server starts.
_PORTS = range(20_000, 30_000)


def require_free(host: str, port: int) -> None:
    """Raise OSError unless a server could listen there now."""
    with socket.socket() as probe:
        # As servers do: a connection that has just ended there is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def free_port() -> int:
    """Return a port of this machine that nobody uses; raise OSError if there is none."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with suppress(OSError):
            require_free("127.0.0.1", port)
            return port
    raise OSError(f"all ports from {_PORTS[0]} to {_PORTS[-1]} are taken")
