"""What HAProxy answers itself, in the shape of the protocol that is asked.

HAProxy knows the path of a request, so it looks the body up by the shape of the path's errors, in a file of
its own format for maps: a line has the shape, a space, and the body.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic_core import to_json

from serve_app.http.errors import (
    JSON_TYPE,
    BodyTimeoutError,
    MalformedRequestError,
    ModelNotReadyError,
    OverloadedError,
    ServingError,
    UnexpectedError,
    UnknownPathError,
)
from serve_app.http.shapes import KSERVE_END, OPENAI_MODEL, PATH_ENDS, Shape, error_document

_MALFORMED: Final = MalformedRequestError()
# HAProxy does not send such a request again: the request may be the reason why the replica died.
_NO_REPLICA: Final = ModelNotReadyError("no replica answered this request; send it again")

ANSWERS: Final[Mapping[str, ServingError]] = {
    "malformed": _MALFORMED,
    "overloaded": OverloadedError("the model has too many requests waiting"),
    "no_replica": _NO_REPLICA,
    "no_route": ModelNotReadyError("the service has no route yet, because it is starting; send it again"),
    "no_routes": UnknownPathError("there is nothing at /-/routes; GET /v2/models lists the models"),
    "body_timeout": BodyTimeoutError(),
    "unexpected": UnexpectedError(),
}
"""Every error that the rules answer with, by the name that they use."""

# The errors in place of HAProxy's own, by the status of these.
_OWN: Final = {
    400: "malformed",
    403: "malformed",
    408: "body_timeout",
    500: "unexpected",
    501: "malformed",
    502: "no_replica",
    503: "no_replica",
    504: "no_replica",
}
# The header of HAProxy's own answers by which their status is changed. Clients do not see it.
_OWN_HEADER: Final = "x-answer-of-the-proxy"


def write_answers(folder: Path) -> dict[str, str]:
    """Write the bodies into `folder`; return by name what an answer is made of, for HAProxy's rules."""
    return {name: _content(name, error, folder) for name, error in ANSWERS.items()}


def _content(name: str, error: ServingError, folder: Path) -> str:
    path = folder / f"{name}.map"
    lines = [f"{shape} ".encode() + to_json(error_document(shape, error)) + b"\n" for shape in Shape]
    path.write_bytes(b"".join(lines))
    headers = "".join(f' hdr {header} "{value}"' for header, value in error.headers.items())
    body = f"%[var(txn.shape,{Shape.PLAIN}),map_str({path})]"
    return f'content-type {JSON_TYPE} lf-string "{body}"{headers}'


def own_errors(contents: Mapping[str, str]) -> str:
    """Return the lines that put our answers in place of HAProxy's."""
    return "\n".join(
        f"    http-error status {status} {contents[name]} hdr {_OWN_HEADER} {ANSWERS[name].status}"
        for status, name in _OWN.items()
    )


def shape_rules() -> str:
    """Return the rules that note the shape of a request's errors."""
    ends = dict(PATH_ENDS)
    lines = [f"set-var(txn.shape) str({shape}) if {{ path_end {_ends(*ends[shape])} }}" for shape in ends]
    lines += [
        f"set-var(txn.shape) str({Shape.OPENAI}) if {{ path_sub {OPENAI_MODEL} }}",
        f"set-var(txn.shape) str({Shape.PLAIN}) if {{ path_end {_ends(KSERVE_END)} }}",
    ]
    return "".join(f"    http-request {line}\n" for line in lines)


def status_rules() -> str:
    """Return the rules of a frontend that mend the status of answers in place of HAProxy's own."""
    statuses = sorted({ANSWERS[name].status for name in _OWN.values()})
    lines = [f"set-status {each} if {{ res.hdr({_OWN_HEADER}) {each} }}" for each in statuses]
    lines.append(f"del-header {_OWN_HEADER}")
    return "".join(f"    http-after-response {line}\n" for line in lines)


def _ends(*ends: str) -> str:
    return " ".join(f"{end} {end}/" for end in ends)
