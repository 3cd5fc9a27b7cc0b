"""The checkpoints of Serve's controller, which it reads when it starts.

Ray's head keeps them in its store, so that another head knows the applications. One that cannot be read would
keep every controller from starting, and no endpoint could change any more. Without checkpoints, a controller
starts like the first one, and the operator has the Serve config sent again, because Ray has no application.
"""

import logging
import pickle
from contextlib import suppress
from typing import Final

import ray
from ray.serve._private import application_state, controller, deployment_state, endpoint_state
from ray.serve._private.common import REPLICA_ID_FULL_ID_STR_PREFIX
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.serve._private.storage.kv_store import RayInternalKVStore

# The checkpoint of Serve's logging is not among them: the controller reads it before it calls anybody.
KEYS: Final = (
    controller.CONFIG_CHECKPOINT_KEY,
    application_state.CHECKPOINT_KEY,
    deployment_state.CHECKPOINT_KEY,
    endpoint_state.CHECKPOINT_KEY,
)

logger = logging.getLogger("ray.serve")


def drop_unreadable() -> None:
    """Remove all checkpoints if one cannot be read; never raises.

    The replicas of before end, because no controller would know them.
    """
    try:
        # The controller's own words for its store.
        store = RayInternalKVStore(f"ray-serve-{ray.get_runtime_context().namespace}")
        reasons = {key: _reason(store.get(key)) for key in KEYS}
        if not any(reasons.values()):
            return
        for key, reason in reasons.items():
            if reason:
                logger.error("%s cannot be read (%s); Serve starts without any checkpoint", key, reason)
            store.delete(key)
        _end_replicas()
    except Exception:
        logger.exception("the checkpoints could not be checked")


def _reason(checkpoint: bytes | None) -> str:
    """Return why a checkpoint cannot be read; empty if it can, or if there is none."""
    if checkpoint is None:
        return ""
    try:
        pickle.loads(checkpoint)
    except Exception as error:
        return repr(error)
    return ""


def _end_replicas() -> None:
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == SERVE_NAMESPACE and actor["name"].startswith(REPLICA_ID_FULL_ID_STR_PREFIX):
            # It may have ended since it was listed.
            with suppress(ValueError):
                ray.kill(ray.get_actor(actor["name"], namespace=SERVE_NAMESPACE))
