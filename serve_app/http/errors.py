"""Every error that a client can get, with its status code and JSON body, and the reply that carries it.

The body is `{"error": <sentence>, "code": <word>}`; the Open Inference Protocol requires a string as `error`.
The HAProxy command imports this module and must start fast, so it imports neither pydantic nor starlette.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from pydantic_core import to_json

JSON_TYPE: Final = "application/json"

RETRY_AFTER_SECONDS: Final = 1
BODY_TIMEOUT_SECONDS: Final = 30.0

# HAProxy's rules give it to each request. Serve then leaves it to us to watch for clients that leave.
PROXY_HEADER: Final = "x-request-disconnect-disabled"


class ServingError(Exception):
    """A request that cannot be answered, with a sentence for the client.

    `details` become further members of the JSON body, for programs.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details

    @property
    def document(self) -> dict[str, Any]:
        return {"error": str(self), "code": self.code, **self.details}

    def body(self) -> bytes:
        return to_json(self.document)


class MalformedBodyError(ServingError):
    """The body is not of the type that the request states."""

    status, code = 400, "malformed_body"


class MalformedRequestError(ServingError):
    """The proxy cannot read the request."""

    status, code = 400, "malformed_request"

    def __init__(self) -> None:
        super().__init__(
            "this is no HTTP request that the server can read; look at its first line and headers"
        )


class UnauthorizedError(ServingError):
    """The client has sent no key, or one that is not known."""

    status, code = 401, "unauthorized"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class NotAllowedError(ServingError):
    """The client's key may not ask this model."""

    status, code = 403, "not_allowed"


class UnknownModelError(ServingError):
    """There is no model of that name."""

    status, code = 404, "unknown_model"


class UnknownVersionError(ServingError):
    """The model has no version of that name."""

    status, code = 404, "unknown_version"


class FixedRepositoryError(ServingError):
    """Models are loaded and unloaded as their resources say, not by requests."""

    status, code = 400, "models_are_resources"


class UnknownPathError(ServingError):
    """There is nothing at that path."""

    status, code = 404, "unknown_path"


class MethodNotAllowedError(ServingError):
    """The path does not take that method."""

    status, code = 405, "method_not_allowed"

    def __init__(self, path: str, method: str, allowed: str) -> None:
        super().__init__(f"{path} does not take {method}; it takes {allowed}")
        self.headers = {"Allow": allowed}


class RequestTimeoutError(ServingError):
    """The request took longer than the endpoint allows."""

    status, code = 408, "request_timeout"


class BodyTimeoutError(RequestTimeoutError):
    """The client took too long to send its body."""

    def __init__(self) -> None:
        super().__init__(f"the body did not arrive within {BODY_TIMEOUT_SECONDS:g} seconds")


class ClientGoneError(ServingError):
    """The client has closed its connection. Only metrics show this status, which is nginx's."""

    status, code = 499, "client_gone"


class BodyTooLargeError(ServingError):
    """The body has more bytes than one request may have."""

    status, code = 413, "body_too_large"


class UnsupportedMediaTypeError(ServingError):
    """The content type or encoding is not supported."""

    status, code = 415, "unsupported_media_type"


class InvalidInputError(ServingError):
    """The request is well-formed, but this model cannot answer it.

    `member` is the place in the request that is wrong, if it is one; OpenAI's errors have it as `param`.
    """

    status, code = 422, "invalid_input"

    def __init__(self, message: str, *, member: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.member = member


class InputTooLongError(InvalidInputError):
    """A text has more tokens than the endpoint allows, and the endpoint does not truncate."""

    code = "input_too_long"


class OverloadedError(ServingError):
    """The replica is full. The same request may succeed a little later."""

    status, code = 429, "overloaded"
    headers: Mapping[str, str] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


class RateLimitedError(ServingError):
    """The key has used up what it may ask of the endpoint for now; `seconds` later there is some again."""

    status, code = 429, "rate_limited"

    def __init__(self, message: str, seconds: float, **details: Any) -> None:
        super().__init__(message, **details)
        self.headers = {"Retry-After": str(max(1, math.ceil(seconds)))}


class ModelNotReadyError(ServingError):
    """The model exists, but does not answer now."""

    status, code = 503, "model_not_ready"
    headers: Mapping[str, str] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


class ModelFailedError(ServingError):
    """The model raised an exception on this input; the client is not at fault."""

    status, code = 500, "model_failed"

    def __init__(self) -> None:
        super().__init__("the model failed on this input; the replica's log says how")


class UnexpectedError(ServingError):
    """There is a fault in this program."""

    def __init__(self) -> None:
        super().__init__("unexpected error; the replica's log says which")


@dataclass(frozen=True)
class Reply:
    """An HTTP response as plain data, which the gateway relays without parsing it."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, document: Any) -> "Reply":
        """Return the reply that is `document` in JSON, where NaN and infinity are null."""
        return cls(to_json(document, inf_nan_mode="null"), JSON_TYPE)
