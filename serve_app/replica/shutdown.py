"""When this replica will be stopped by force.

Serve's controller asks a replica to stop, and kills it once its grace is over; what it streams then would
break off without a word. Ray tells the code of a deployment neither, so the actor of the replica is looked at.
"""

import logging
from typing import Any, Final

from ray._private.worker import global_worker

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")

# An error needs so long to reach the clients, through the proxy.
LEAD_SECONDS: Final = 2.0


def grace_of_shutdown() -> float | None:
    """Return the seconds of grace of a replica that is asked to stop, and None while it is not.

    None in other processes, and with a Ray whose actors look otherwise.
    """
    for actor in getattr(global_worker, "actors", {}).values():
        replica: Any = getattr(actor, "_replica_impl", None)
        if getattr(replica, "_shutting_down", False):
            return float(replica._deployment_config.graceful_shutdown_timeout_s)
    return None
