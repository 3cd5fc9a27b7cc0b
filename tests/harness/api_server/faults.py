"""What can go wrong between a client and the API server: values that say which requests are hurt, and how.

They decide nothing by themselves; `fault_proxy.py` does to a request what its faults say.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_REASONS: Final = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Hurts the requests of these methods whose path matches; what is not said does not narrow it.

    `watch` tells watches from all else. After `times` requests the fault is over.
    """

    methods: tuple[str, ...] = ()
    path: str = ""
    watch: bool | None = None
    times: int | None = None

    def hurts(self, method: str, path: str, query: Mapping[str, str]) -> bool:
        """Return whether a request is one of those that are hurt."""
        return (
            (not self.methods or method in self.methods)
            and re.search(self.path, path) is not None
            and self.watch in (None, is_watch(query))
        )


@dataclass(frozen=True)
class Delay(Fault):
    """The request waits before it is sent on."""

    seconds: float


@dataclass(frozen=True)
class Hang(Fault):
    """Not a byte comes any more, not even on watches that were open; the connection stays.

    What hangs does so for good, as after a firewall has forgotten a connection; new requests
    pass once the fault is lifted.
    """


@dataclass(frozen=True)
class Late(Fault):
    """The request is on its way until the fault is lifted; then it comes, even if its client has gone."""


@dataclass(frozen=True)
class Answer(Fault):
    """The proxy answers with an error, and the API server never hears of the request."""

    status: int
    retry_after: int | None = None


@dataclass(frozen=True)
class CutAfter(Fault):
    """The connection breaks after so many bytes of the answer's body; with 0 there is no answer at all.

    The API server has done what was asked, and the client cannot know.
    """

    size: int


@dataclass(frozen=True)
class GoneEvent(Fault):
    """Watches, those that are open too, end with an ERROR event of code 410: the version is too old."""


@dataclass(frozen=True)
class EndWatch(Fault):
    """Watches end politely after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class ShortList(Fault):
    """Lists are complete to all appearances but hold only their first items."""

    items: int = 0


def is_watch(query: Mapping[str, str]) -> bool:
    """Return whether a request with this query is a watch."""
    return query.get("watch", "").lower() in ("true", "1")


def status_body(code: int) -> dict[str, Any]:
    """Return the Status object that the API server sends with an error."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"the fault proxy answers {code}",
        "reason": _REASONS.get(code, "Unknown"),
        "code": code,
    }


def gone_event() -> bytes:
    """Return the line with which a watch says that it cannot go on."""
    return json.dumps({"type": "ERROR", "object": status_body(410)}).encode() + b"\n"


def shortened(body: bytes, items: int) -> bytes:
    """Return a list's body with its first `items` only; what is no list comes back as it is."""
    document = json.loads(body)
    if "items" not in document:
        return body
    # Without these two, nothing in the answer tells that there is more.
    metadata = {
        key: value
        for key, value in document["metadata"].items()
        if key not in ("continue", "remainingItemCount")
    }
    return json.dumps(document | {"metadata": metadata, "items": document["items"][:items]}).encode()
