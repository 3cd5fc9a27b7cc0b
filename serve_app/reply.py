"""An answer as bytes with its content type: what the gateway can relay without understanding it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.responses import Response

from serve_app.errors import ServingError

JSON_TYPE: Final = "application/json"


@dataclass(frozen=True)
class Reply:
    """Body, content type, status and further headers of an HTTP answer."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def for_error(cls, error: ServingError) -> "Reply":
        """Return the answer that tells a client of `error`."""
        return cls(error.body(), JSON_TYPE, error.status, dict(error.headers))

    def response(self) -> Response:
        """Return the HTTP response."""
        return Response(self.body, self.status, dict(self.headers), media_type=self.content_type)
