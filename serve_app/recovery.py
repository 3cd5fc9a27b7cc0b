"""What Serve's controller calls when it starts, before it reads its checkpoints: see `prepare`.

A controller that was started again, as after the loss of Ray's head, asks the running replicas who they are.
Ray 2.60 gives them 10 seconds, and then takes the others for gone: it tells the proxies that no application
has a replica, and drains the proxies of nodes whose replicas it does not know yet. Those nodes then leave the
Service, though everything on them answers. After a head has died without a word, replicas have been seen to
need 10.4 seconds.

Ray has no setting for that time, but calls the function that RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH names.
"""

import logging
from typing import Final

from ray.serve._private import controller

from serve_app.checkpoints import drop_unreadable
from serve_app.rebuilds import remember_deployments

# Ray itself gives up a replica that has not answered by then: RAY_SERVE_SLOW_STARTUP_WARNING_S is 30.
RECOVERY_SECONDS: Final = 45.0

_CONSTANT: Final = "RECOVERING_LONG_POLL_BROADCAST_TIMEOUT_S"

logger = logging.getLogger("ray.serve")


def prepare() -> None:
    """Drop checkpoints that cannot be read, wait longer for replicas, and remember them; never raises."""
    drop_unreadable()
    wait_for_replicas()
    remember_deployments()


def wait_for_replicas() -> None:
    """Let the controller of this process wait RECOVERY_SECONDS; a Ray without the constant only logs it."""
    if hasattr(controller, _CONSTANT):
        setattr(controller, _CONSTANT, RECOVERY_SECONDS)
    else:
        logger.error("Serve's controller has no %s, so it waits as long as it likes", _CONSTANT)
