"""What Serve's controller calls when it starts, before it reads its checkpoints: see `prepare`.

A controller that was started again, as after the loss of Ray's head, asks the running replicas who they are.
Ray 2.60 gives them 10 seconds, and then takes the others for gone: it tells the proxies that no application
has a replica, and drains the proxies of nodes whose replicas it does not know yet. Those nodes then leave the
Service, though everything on them answers. After 30 seconds it kills the replicas that have not answered yet,
also where all have not. After a head has died without a word, replicas have been seen to need 10.4 seconds,
and in another case more than 30.

Ray has no settings for these times alone, but calls the function that
RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH names.
"""

import inspect
import logging
import time
from typing import Any, Final

from ray.serve._private import controller, deployment_state
from ray.serve._private.deployment_state import DeploymentState

from serve_app.checkpoints import drop_unreadable
from serve_app.rebuilds import remember_deployments

# Twice what has been seen. A replica whose process has died is known to be gone within seconds, one of a node
# that falls silent within about a minute.
REPLICA_SECONDS: Final = 60.0

_CONSTANT: Final = "RECOVERING_LONG_POLL_BROADCAST_TIMEOUT_S"
_CHECK: Final = "_check_startup_replicas"
_PARAMETERS: Final = ["self", "original_state", "stop_on_slow"]

logger = logging.getLogger("ray.serve")


def prepare() -> None:
    """Drop checkpoints that cannot be read, wait longer for replicas, and remember them; never raises."""
    drop_unreadable()
    wait_for_replicas()
    remember_deployments()


def recovery_seconds() -> float:
    """Seconds after which proxies get what is known: a little more than the last replica has."""
    ray_s_own = float(getattr(deployment_state, "SLOW_STARTUP_WARNING_S", 0))
    return max(REPLICA_SECONDS, ray_s_own) + 15.0


def wait_for_replicas() -> None:
    """Let the controller of this process wait so long; a Ray that is otherwise only logs it."""
    if hasattr(controller, _CONSTANT):
        setattr(controller, _CONSTANT, recovery_seconds())
    else:
        logger.error("Serve's controller has no %s, so it waits as long as it likes", _CONSTANT)
    check = getattr(DeploymentState, _CHECK, None)
    if check is None or list(inspect.signature(check).parameters) != _PARAMETERS:
        logger.error(
            "Serve's deployments have another %s, so they give replicas as long as they like", _CHECK
        )
        return

    def patient(state: Any, original_state: Any, stop_on_slow: bool = False) -> Any:
        """Check replicas as Ray does, but call none slow that it may stop before REPLICA_SECONDS."""
        if stop_on_slow:
            asked = (replica._start_time for replica in state._replicas.get(states=[original_state]))
            stop_on_slow = any(time.time() - since > REPLICA_SECONDS for since in asked)
        return check(state, original_state, stop_on_slow)

    setattr(DeploymentState, _CHECK, patient)
