"""The desired text of the Serve config; pure."""

from collections.abc import Iterator, Mapping

from endpoint_operator.controller.decide.selection import SelectedVersion
from endpoint_operator.controller.decide.situation import Situation
from endpoint_operator.controller.observed.ray_view import is_deployed
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
    if not _ray_has_something_else(situation, service):
        return service.document
    # KubeRay sends a Serve config again if the string differs; to Ray a newline makes no difference.
    return document if service.document.endswith("\n") else f"{document}\n"


def _ray_has_something_else(situation: Situation, service: RayService) -> bool:
    """Return whether Ray has had other applications than the Serve config for too long.

    The store of Ray's head may be older than what KubeRay has sent, and KubeRay does not look. If Ray has no
    application at all, KubeRay sends the Serve config again by itself.
    """
    trustworthy = not service.is_behind and service.pending is None and not service.suspended
    if not trustworthy or not situation.view.applications:
        return False
    watch, deadlines = situation.clock.watch, situation.clock.deadlines
    # Every timer must be asked in each round, or it starts again.
    held = [
        watch.held(("not as written", name, service.document), deadlines.missing_seconds)
        for name in _not_as_written(situation)
    ]
    return any(held)


def _not_as_written(situation: Situation) -> Iterator[str]:
    """Yield what Ray lacks and, if it has been asked itself, what it has otherwise or should not have."""
    applications, is_fresh = situation.view.applications, situation.view.is_fresh
    for name, entry in situation.live.items():
        if name not in applications or (is_fresh and not is_deployed(applications[name], entry)):
            yield name
    if is_fresh:
        surplus = applications.keys() - situation.live.keys()
        yield from sorted(name for name in surplus if applications[name].status != "DELETING")
