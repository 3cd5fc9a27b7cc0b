"""What must hold whatever goes wrong, decided from the versions that the API server has stored; pure.

I1 each document that the operator writes is one that Serve takes, and has the gateway;
I2 each entry is, to the byte, what a version of its own endpoint compiles to: nothing of another
   endpoint, good or bad, shows in it;
I3 nothing is written that is there already, be it in another form;
I4 an application leaves the document only after its endpoint has left or was suspended, or if the
   test has said that it may.
That all comes right after the faults (I5) is what each test waits for.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from pydantic import ValidationError

from endpoint_operator.api.profiles import Profiles
from endpoint_operator.api.types import parse_endpoint
from endpoint_operator.serveconfig.compiler import compile_serve_config
from serve_app.contract import GATEWAY_APPLICATION
from tests.harness.api_server.fault_proxy import Request
from tests.harness.history import Change
from tests.harness.kuberay.serve import ServeDeploySchema

OPERATOR: Final = "model-endpoints-operator"


def violations(
    history: Sequence[Change],
    profiles: Profiles,
    may_leave: Collection[str] = (),
    may_push: bool = False,
) -> list[str]:
    """Return a sentence for each breach.

    `may_leave` are the applications that may be withdrawn; `may_push`, whether the text may change alone.
    """
    found: list[str] = []
    endpoints: dict[str, Any] = {}
    entries: dict[str, set[str]] = {}
    before = ""
    for change in history:
        if change.is_endpoint:
            _remember(change, profiles, endpoints, entries)
            continue
        document = change.object["spec"].get("serveConfigV2", "")
        if document not in ("", before) and writes_document(change):
            where = f"document of version {change.version}"
            found += [f"I1: {where}: {error}" for error in _schema_errors(document)]
            found += [f"I2: {where}: {name} is of no version of it" for name in _foreign(document, entries)]
            left = _applications(before).keys() - _applications(document).keys() - set(may_leave)
            stay = [name for name in left if name in endpoints and not endpoints[name]["spec"].get("suspend")]
            found += [f"I4: {where}: {name} left, and its endpoint is there" for name in stay]
            if _applications(before) == _applications(document) and not may_push:
                found.append(f"I3: {where} says what the one before it says")
        before = document
    return found


def repetitions(requests: Iterable[Request], history: Sequence[Change]) -> list[str]:
    """Return a sentence for each breach of I3 among the requests that reached the API server.

    What somebody else has overwritten, and what got no answer, may be written again.
    """
    seen: dict[str, bytes] = {}
    found = []
    for request in requests:
        if request.method == "PATCH" and request.passed and "/events" not in request.path:
            if seen.get(request.path) == request.body:
                found.append(f"I3: written twice to {request.path}: {request.body[:200]!r}")
            seen[request.path] = request.body if request.status == 200 else b""
    overwritten = sum(not mine for mine, _ in _written(history))
    return found[overwritten:]


def documents(history: Sequence[Change]) -> list[str]:
    """Return each document that the operator has written, in order."""
    return [document for mine, document in _written(history) if mine]


def _written(history: Sequence[Change]) -> Iterator[tuple[bool, str]]:
    """Yield each document that is not the one before, and whether the operator has written it."""
    before = ""
    for change in history:
        document = before if change.is_endpoint else change.object["spec"].get("serveConfigV2", "")
        if document != before:
            yield writes_document(change), document
        before = document


def writes_document(change: Change) -> bool:
    """Return whether the operator is the one to whom this version's document belongs."""
    return any(
        fields["manager"] == OPERATOR and "f:serveConfigV2" in fields.get("fieldsV1", {}).get("f:spec", {})
        for fields in change.object["metadata"].get("managedFields", [])
    )


def _remember(
    change: Change, profiles: Profiles, endpoints: dict[str, Any], entries: dict[str, set[str]]
) -> None:
    if change.deleted or "deletionTimestamp" in change.object["metadata"]:
        endpoints.pop(change.name, None)
        return
    known = endpoints.get(change.name, {}).get("metadata", {})
    endpoints[change.name] = change.object
    # Most versions differ in their status only.
    if known.get("generation") == change.object["metadata"].get("generation", 0):
        return
    try:
        alone = compile_serve_config([parse_endpoint(change.object)], profiles).document
    except ValidationError:
        return
    for name, entry in _applications(alone).items():
        entries.setdefault(name, set()).add(json.dumps(entry))


def _foreign(document: str, entries: dict[str, set[str]]) -> list[str]:
    return [
        name
        for name, entry in _applications(document).items()
        if name != GATEWAY_APPLICATION and json.dumps(entry) not in entries.get(name, set())
    ]


def _applications(document: str) -> dict[str, Any]:
    try:
        return {entry["name"]: entry for entry in json.loads(document)["applications"]}
    except (ValueError, KeyError, TypeError):
        # Somebody else has written it.
        return {}


def _schema_errors(document: str) -> list[str]:
    try:
        ServeDeploySchema.model_validate(json.loads(document))
    except ValueError as error:
        return [str(error)]
    return [] if GATEWAY_APPLICATION in _applications(document) else ["the gateway is missing"]
