"""The command that empties a worker before its pod ends: replicas elsewhere take over, then Ray leaves.

Kubernetes runs `model-endpoints-drain SECONDS` as the preStop hook of a worker, when it has begun to take the
pod out of the Service. Ray is told that the node goes. Serve then starts the replicas of this node elsewhere,
moves requests there, and ends the old ones once they have answered. Ray's own process ends when the node has
nothing left to do, or at the deadline.

A controller of Serve that was started again during the drain forgets the proxy of this node, which would
stay until the deadline. So a node without replicas and without connections is empty, too.
"""

import os
import socket
import sys
import time
from typing import Final

import psutil
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # missing in its stub
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from ray.core.generated.gcs_pb2 import GcsNodeInfo

_PAUSE_SECONDS: Final = 0.5
_CALL_SECONDS: Final = 5.0
# Another head answers within a minute, on a slow machine a little later; Ray starts sooner.
_HEAD_PATIENCE_SECONDS: Final = 90.0
# The next head's pod has an address as soon as it has a node, long before it answers, and DNS may take 30
# seconds more to say so. A Ray cluster that is removed as a whole has none.
_NO_HEAD_SECONDS: Final = 45.0
# So long Serve's own proxy stays without work before it ends, and this adds a little.
_QUIET_SECONDS: Final = 20.0

# Ray names the process of a replica like this.
_REPLICA: Final = "ray::ServeReplica"
# Of HTTP and of gRPC.
_SERVE_PORTS: Final = frozenset({8000, 9000})


def main() -> None:
    """Drain this node within the seconds of the first argument. It does not fail, for the pod ends anyway."""
    drain(float(sys.argv[1]))


def drain(seconds: float) -> None:
    """Tell Ray that this node goes, and return when it has gone or is empty, or after so many seconds.

    While Ray's head is away nobody can move replicas. They answer here until it is back or given up, which is
    sooner where no pod takes its place and no client is connected.
    """
    heard = located = worked = time.monotonic()
    deadline = heard + seconds
    told = refused = False
    while (now := time.monotonic()) < min(deadline, heard + _HEAD_PATIENCE_SECONDS):
        connected = _has_connections()
        if connected or not told or _has_replicas():
            worked = now
        if now - worked > _QUIET_SECONDS or now - located > _NO_HEAD_SECONDS:
            return
        try:
            _knock(os.environ["RAY_ADDRESS"])
            gcs = GcsClient(address=os.environ["RAY_ADDRESS"])
            nodes = _nodes_of(gcs, os.environ["RAY_CLOUD_INSTANCE_ID"])
            living = [node for node, lives in nodes.items() if lives]
            if nodes and not living:
                return
            located = time.monotonic()
            # Without any, Ray still starts, and would miss the signal that ends the pod: the first process of
            # a container gets none before it has a handler.
            if living:
                heard = located
                refused = refused or not _tell(gcs, living[0], deadline)
                told = True
        except Exception as error:
            print(f"Ray's head could not be asked to drain: {error!r}", file=sys.stderr)
            if connected or _has_address(os.environ["RAY_ADDRESS"]):
                located = time.monotonic()
        time.sleep(_PAUSE_SECONDS)


def _knock(head: str) -> None:
    """Connect to `head`, a host and a port, or raise OSError. Ray's client would try for a minute first."""
    host, _, port = head.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _CALL_SECONDS).close()


def _has_address(head: str) -> bool:
    """Return whether the name in `head`, a host and a port, has an address; True if that is not known.

    KubeRay's headless Service has the address of the head's pod for as long as that has one, ready or not.
    """
    try:
        socket.getaddrinfo(head.rpartition(":")[0].strip("[]"), None)
    except socket.gaierror as error:
        return error.errno not in (socket.EAI_NONAME, socket.EAI_NODATA)
    return True


def _nodes_of(gcs: GcsClient, pod: str) -> dict[str, bool]:
    """Return whether they live, for the hexadecimal ids of the nodes in the pod of this name.

    There is none before Ray has started, and then one, because a worker's container is not started again.
    """
    nodes = gcs.get_all_node_info(timeout=_CALL_SECONDS)
    return {
        identifier.hex(): info.state == GcsNodeInfo.GcsNodeState.ALIVE
        for identifier, info in nodes.items()
        if info.instance_id == pod
    }


def _tell(gcs: GcsClient, node: str, deadline: float) -> bool:
    """Tell Ray's head that this node goes by the monotonic time `deadline`; return False if it refuses.

    It is asked each time whether it knows that, because it may be another head than the one that was told.
    """
    if node in gcs.get_draining_nodes(timeout=_CALL_SECONDS):
        return True
    accepted, reason = gcs.drain_node(
        node,
        # Of the two reasons that Ray knows, the one that a node with work on it accepts.
        DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
        "the pod is being deleted",
        int((time.time() + deadline - time.monotonic()) * 1000),
        # Without, it waits for ever for a head that has gone meanwhile.
        timeout=_CALL_SECONDS,
    )
    if not accepted:
        print(f"Ray does not drain this node: {reason}", file=sys.stderr)
    return bool(accepted)


def _has_replicas() -> bool:
    """Return whether a replica runs in this pod."""
    commands = (process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"]))
    return any(command[0].startswith(_REPLICA) for command in commands)


def _has_connections() -> bool:
    """Return whether a client is connected to a port of requests."""
    return any(
        connection.status == psutil.CONN_ESTABLISHED
        and connection.laddr
        and connection.laddr.port in _SERVE_PORTS
        for connection in psutil.net_connections("tcp")
    )
