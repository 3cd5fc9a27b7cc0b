"""Serve's controller keeps in mind what an application has while it builds it anew.

Ray 2.60 forgets the deployments of an application from the moment in which it gets another config until that
is built, which takes a second or more on a busy head. Meanwhile it tells the proxies that the application has
no replica, and whoever asks that it has no deployment, although the replicas of before answer. So it is, too,
as long as the last build has failed.
"""

import logging
from typing import Any, Final

from ray.serve._private.application_state import ApplicationState
from ray.serve._private.common import DeploymentID

_SET: Final = "_set_target_state"
_LIST: Final = "list_deployment_details"
_INGRESS: Final = "_ingress_deployment_name"

logger = logging.getLogger("ray.serve")


def remember_deployments() -> None:
    """Let the applications of this process keep their deployments; a Ray that is otherwise only logs it."""
    if not (hasattr(ApplicationState, _SET) and hasattr(ApplicationState, _LIST)):
        logger.error(
            "Serve's applications are of another kind, and forget their replicas while they are built"
        )
        return
    set_target_state = getattr(ApplicationState, _SET)
    list_deployment_details = getattr(ApplicationState, _LIST)

    def keeping(state: Any, deployment_infos: Any, **more: Any) -> None:
        """Set the target; one that is not known yet leaves the deployment that takes requests."""
        ingress = getattr(state, _INGRESS)
        set_target_state(state, deployment_infos, **more)
        if deployment_infos is None:
            setattr(state, _INGRESS, ingress)

    def listing(state: Any) -> dict[str, Any]:
        """Return the details of the target's deployments; while it is not known, of those that there are."""
        if state._target_state.deployment_infos is not None:
            found: dict[str, Any] = list_deployment_details(state)
            return found
        manager = state._deployment_state_manager
        details = {
            name: manager.get_deployment_details(DeploymentID(name=name, app_name=state._name))
            for name in manager.get_deployments_in_application(state._name)
        }
        return {name: detail for name, detail in details.items() if detail is not None}

    setattr(ApplicationState, _SET, keeping)
    setattr(ApplicationState, _LIST, listing)
