"""The id of a request: the client's, if it is one, or a new one; answers have it too."""

import re
import uuid
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID: Final = "x-request-id"

_NAME: Final = REQUEST_ID.encode()
# It goes into headers and logs, so it may neither break a line nor be long.
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def id_of(given: str | None) -> str:
    """Return the id that a client has given, or a new one if it has given none."""
    return given if given and _ID.fullmatch(given) else uuid.uuid4().hex


class WithRequestId:
    """Gives each request an id, as a header that `app` reads, and each answer the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == _NAME), None)
        own = id_of(given).encode()
        others = [header for header in scope["headers"] if header[0] != _NAME]

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (_NAME, own)]}
            await send(message)

        await self._app({**scope, "headers": [*others, (_NAME, own)]}, receive, answered)
