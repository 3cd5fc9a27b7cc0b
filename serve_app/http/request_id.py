"""The id of a request: the client's, if it is one, or a new one.

Over HTTP, HAProxy's rules see to it that each request has one and each answer the same. Without HAProxy, Ray
Serve does.
"""

import re
import uuid
from typing import Final

REQUEST_ID: Final = "x-request-id"

# It goes into headers and logs, so it may neither break a line nor be long. HAProxy has the same rule.
PATTERN: Final = r"^[A-Za-z0-9._-]{1,128}$"
_ID: Final = re.compile(PATTERN)


def id_of(given: str | None) -> str:
    """Return the id that a client has given, or a new one if it has given none."""
    return given if given and _ID.fullmatch(given) else uuid.uuid4().hex
