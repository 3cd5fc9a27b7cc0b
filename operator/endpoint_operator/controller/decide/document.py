"""The desired text of the Serve config; pure."""

from collections.abc import Mapping

from endpoint_operator.controller.decide.selection import SelectedVersion
from endpoint_operator.controller.decide.situation import Situation
from endpoint_operator.controller.observed.rayservice import RayService
from endpoint_operator.serveconfig.document import to_document
from serve_app.contract import GATEWAY_APPLICATION


def desired_document(
    situation: Situation, gateway: str, selected: Mapping[str, SelectedVersion]
) -> str | None:
    """Return the Serve config with `gateway` and the selected entries; None without a RayService."""
    service = situation.view.service
    if service is None:
        return None
    entries = {name: each.entry for name, each in selected.items() if each.entry is not None}
    document = to_document({**entries, GATEWAY_APPLICATION: gateway})
    if document != service.document.rstrip("\n"):
        return document
    if not _is_missing_something(situation, service):
        return service.document
    # KubeRay sends a Serve config again if the string differs; to Ray a newline makes no difference.
    return document if service.document.endswith("\n") else f"{document}\n"


def _is_missing_something(situation: Situation, service: RayService) -> bool:
    # If Ray has no application at all, KubeRay sends the Serve config again by itself.
    trustworthy = not service.is_behind and service.pending is None and not service.suspended
    applications = situation.view.applications
    if not trustworthy or not applications:
        return False
    watch, deadlines = situation.clock.watch, situation.clock.deadlines
    # Every timer must be asked in each round, or it starts again.
    missing = [
        watch.held(("missing", name, service.document), deadlines.missing_seconds)
        for name in situation.live
        if name not in applications
    ]
    return any(missing)
