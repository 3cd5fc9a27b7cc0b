"""Ports for servers that start in a moment."""

import random
import socket

# The system gives ports above to whoever asks for any, Ray those below to its workers: theirs would be free
# now and taken when the server starts.
_PORTS = range(20_000, 30_000)


def free_port() -> int:
    """Return a port of this machine that nobody uses; raise OSError if there is none."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            # As servers do: a connection that has just ended there is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"all ports from {_PORTS[0]} to {_PORTS[-1]} are taken")
