"""Every error that a client can meet, each with its status code, and the one JSON shape of them.

The shape is `{"error": <sentence>, "code": <word>}`; the Open Inference Protocol asks for `error`
to be a string.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from pydantic_core import to_json

JSON_TYPE: Final = "application/json"

RETRY_AFTER_SECONDS: Final = 1
BODY_TIMEOUT_SECONDS: Final = 30.0


class ServingError(Exception):
    """A request that cannot be answered, with a sentence for the client.

    `details` are further members of the JSON body, for programs.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details

    def body(self) -> bytes:
        """Return the JSON body."""
        return to_json({"error": str(self), "code": self.code, **self.details})


class MalformedBodyError(ServingError):
    """The body is not what its content type says."""

    status, code = 400, "malformed_body"


class UnknownModelError(ServingError):
    """No model has that name."""

    status, code = 404, "unknown_model"


class UnknownPathError(ServingError):
    """No route has that path."""

    status, code = 404, "unknown_path"


class MethodNotAllowedError(ServingError):
    """The path exists, the method does not."""

    status, code = 405, "method_not_allowed"


class RequestTimeoutError(ServingError):
    """The endpoint's time limit is over."""

    status, code = 408, "request_timeout"


class BodyTimeoutError(RequestTimeoutError):
    """The client takes too long to send its request."""

    def __init__(self) -> None:
        super().__init__(f"the body did not arrive within {BODY_TIMEOUT_SECONDS:g} seconds")


class ClientGoneError(ServingError):
    """The client has closed its connection. Nobody reads this; the status, nginx's, is for the metrics."""

    status, code = 499, "client_gone"


class BodyTooLargeError(ServingError):
    """More bytes than one request may have."""

    status, code = 413, "body_too_large"


class UnsupportedMediaTypeError(ServingError):
    """A content type or encoding that is not read here."""

    status, code = 415, "unsupported_media_type"


class InvalidInputError(ServingError):
    """Well-formed, and yet not a request that this model can answer."""

    status, code = 422, "invalid_input"


class InputTooLongError(InvalidInputError):
    """A text has more tokens than the endpoint takes, and the endpoint does not truncate."""

    code = "input_too_long"


class OverloadedError(ServingError):
    """The replica is full; the same request may succeed a little later."""

    status, code = 429, "overloaded"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


class ModelNotReadyError(ServingError):
    """The model is known and does not answer now."""

    status, code = 503, "model_not_ready"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


class ModelFailedError(ServingError):
    """The model raised on this input: our fault, not the client's."""

    status, code = 500, "model_failed"

    def __init__(self) -> None:
        super().__init__("the model failed on this input; the replica's log says how")


class UnexpectedError(ServingError):
    """A fault in this program."""

    def __init__(self) -> None:
        super().__init__("unexpected error; the replica's log says which")


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
