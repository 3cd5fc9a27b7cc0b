"""The Serve config as text ("document"), and the text of each application in it ("entry"); pure.

Entries stay text, so that an entry that is kept is the same to the byte. KubeRay compares strings, so equal
configurations must be equal strings: hence the sorted keys.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from pydantic import ValidationError

from endpoint_operator.api.json_text import to_json
from endpoint_operator.api.sources import ANY_SOURCE, Sources
from endpoint_operator.serveconfig.schema import Application
from serve_app.contract import BUILD_IMPORT_PATH, ModelArgs, grpc_options, route_prefix

_HEAD: Final = '{"applications":['
# Serve reads these options when it starts, and not again while it runs.
_TAIL: Final = '],"grpc_options":' + to_json(grpc_options()) + "}"


def to_entry(application: Application) -> str:
    """Serialize one application."""
    return to_json(application.model_dump(mode="json", exclude_defaults=True))


def to_document(entries: Mapping[str, str]) -> str:
    """Join `entries`, a mapping from application name to text.

    Raises ValueError if there are none, because Ray would then remove every application.
    """
    if not entries:
        raise ValueError("a Serve configuration without applications must not be written")
    return _HEAD + ",".join(entries[name] for name in sorted(entries)) + _TAIL


def read_entries(document: str) -> dict[str, str]:
    """Return the entries of a document by application name; none if the document has another shape."""
    try:
        applications = json.loads(document)["applications"]
        return {str(application["name"]): to_json(application) for application in applications}
    except (ValueError, TypeError, KeyError):
        return {}


def own_entry(text: str, name: str, sources: Sources = ANY_SOURCE) -> str | None:
    """Return `text` if it is an entry that this program could have written for `name`, else None.

    An entry in a status or in the live document may have been edited, and could then name other code to run.
    It may also be older than the list of sources from which models may come.
    """
    try:
        application = Application.model_validate_json(text)
        args = ModelArgs.model_validate(application.args)
    except ValidationError:
        return None
    mine = application.name == args.name == name and application.route_prefix == route_prefix(name)
    allowed = mine and sources.allows(args.uri, args.token_secret)
    return to_entry(application) if allowed and application.import_path == BUILD_IMPORT_PATH else None


def fingerprint(entry: str) -> str:
    """Return a short hash of the exact text of an entry."""
    return sha256(entry.encode()).hexdigest()[:16]
