"""Free ports for servers that are about to start."""

import random
import socket
from contextlib import suppress

# The system assigns higher ports to sockets without a port of their own, and Ray assigns lower ones to its
# workers. Such a port could be free now and taken when the server starts.
_PORTS = range(20_000, 30_000)


def require_free(host: str, port: int) -> None:
    """Raise OSError unless a server could listen there now."""
    with socket.socket() as probe:
        # Servers set it too: a connection that has just ended does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def free_port() -> int:
    """Return a port of this machine that is free; raise OSError if there is none."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with suppress(OSError):
            require_free("127.0.0.1", port)
            return port
    raise OSError(f"all ports from {_PORTS[0]} to {_PORTS[-1]} are taken")
