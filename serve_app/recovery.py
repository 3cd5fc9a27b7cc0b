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

import logging
import time
from typing import Any, Final

from ray.serve._private import controller
from ray.serve._private.deployment_state import DeploymentState

from serve_app.checkpoints import drop_unreadable
from serve_app.rebuilds import remember_deployments

# A replica whose process has died is known to be gone much sooner, and so is one of a node that has.
REPLICA_SECONDS: Final = 120.0
# The proxies get what is known by then.
RECOVERY_SECONDS: Final = REPLICA_SECONDS + 15.0

_CONSTANT: Final = "RECOVERING_LONG_POLL_BROADCAST_TIMEOUT_S"
_CHECK: Final = "_check_startup_replicas"

logger = logging.getLogger("ray.serve")


def prepare() -> None:
    """Drop checkpoints that cannot be read, wait longer for replicas, and remember them; never raises."""
    drop_unreadable()
    wait_for_replicas()
    remember_deployments()


def wait_for_replicas() -> None:
    """Let the controller of this process wait so long; a Ray that is otherwise only logs it."""
    if not (hasattr(controller, _CONSTANT) and hasattr(DeploymentState, _CHECK)):
        logger.error("Serve's controller is of another kind, so it waits for replicas as long as it likes")
        return
    setattr(controller, _CONSTANT, RECOVERY_SECONDS)
    check = getattr(DeploymentState, _CHECK)

    def patient(state: Any, original_state: Any, stop_on_slow: bool = False) -> Any:
        """Check replicas as Ray does, but call none slow that it may stop before REPLICA_SECONDS."""
        if stop_on_slow:
            asked = (replica._start_time for replica in state._replicas.get(states=[original_state]))
            stop_on_slow = any(time.time() - since > REPLICA_SECONDS for since in asked)
        return check(state, original_state, stop_on_slow)

    setattr(DeploymentState, _CHECK, patient)
