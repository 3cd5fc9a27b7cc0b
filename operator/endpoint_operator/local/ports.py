"""Free ports for servers that are about to start."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

# The system assigns higher ports to sockets without a port of their own, and Ray assigns lower ones to its
# workers. Such a port could be free now and taken when the server starts.
_PORTS = range(20_000, 30_000)

# Ray's default, and as many further ranges.
_RANGES: Final = [range(start, start + 1000) for start in range(40_000, 60_000, 1000)]


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


@contextmanager
def range_of_its_own() -> Iterator[range]:
    """Keep a range of ports from others that ask here, until the block ends; raise OSError if all are kept.

    Servers that may share a port (SO_REUSEPORT) do not notice that another one listens there, and would take
    some of its connections.
    """
    for ports in random.sample(_RANGES, len(_RANGES)):
        with socket.socket() as claim:
            try:
                claim.bind(("127.0.0.1", ports[0]))
            except OSError:
                continue
            # Only with a listener is the port closed to all others.
            claim.listen(1)
            yield ports[1:]
            return
    raise OSError(f"all {len(_RANGES)} ranges of ports from {_RANGES[0][0]} on are taken")
