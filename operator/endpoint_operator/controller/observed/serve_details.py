"""Parse the answer of Ray's dashboard to `GET /api/serve/applications/`; pure.

Its format is `ServeInstanceDetails` of `ray/serve/schema.py`.
"""

from collections.abc import Mapping
from typing import Any, Final

from endpoint_operator.controller.observed.rayservice import ApplicationReport, Replicas

# States of `ReplicaState` in which a replica answers. A controller that has restarted calls those that it
# finds RECOVERING until it has asked each. Those whose node is drained answer until others have taken over.
_READY: Final = frozenset({"RUNNING", "RECOVERING", "PENDING_MIGRATION"})


def parse_serve_details(details: Mapping[str, Any]) -> dict[str, ApplicationReport]:
    """Return what Ray says of each application.

    Raises ValueError if the answer has another format.
    """
    try:
        return {name: _report(application) for name, application in details["applications"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is not how Serve describes its applications: {error!r}") from error


def _report(application: Mapping[str, Any]) -> ApplicationReport:
    deployments = application.get("deployments", {}).values()
    states = [replica["state"] for deployment in deployments for replica in deployment.get("replicas", [])]
    # Replicas that stop do not count.
    alive = [state for state in states if state != "STOPPING"]
    return ApplicationReport(
        application.get("status", ""),
        application.get("message", ""),
        tuple(deployment.get("message", "") for deployment in deployments),
        Replicas(total=len(alive), ready=sum(state in _READY for state in alive)),
        application.get("deployed_app_config"),
    )
