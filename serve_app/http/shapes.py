"""Errors as each protocol has them: which shape the errors at a path have, and the body of one.

Every shape has the sentence. OpenAI's is `{"error": {"message", "type", "param", "code"}}` (API reference,
"Error codes"). The servers of Hugging Face add `error_type` to a sentence in `error`; Cohere reads `message`
and Jina `detail`, so the answers of `rerank` have all of these.

The command of HAProxy imports this module, whose own answers have these shapes too.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from pydantic_core import to_json

from serve_app.http.errors import JSON_TYPE, InvalidInputError, Reply, ServingError


class Shape(StrEnum):
    """Whose errors they look like."""

    PLAIN = "plain"
    OPENAI = "openai"
    RERANK = "rerank"
    TEXT_EMBEDDINGS = "text_embeddings"
    TEXT_GENERATION = "text_generation"


PATH_ENDS: Final[Mapping[Shape, tuple[str, ...]]] = {
    Shape.OPENAI: ("/v1/embeddings", "/v1/models", "/v1/chat/completions", "/v1/completions"),
    Shape.RERANK: ("/rerank",),
    Shape.TEXT_EMBEDDINGS: ("/embed",),
    Shape.TEXT_GENERATION: ("/generate", "/generate_stream"),
}
"""The ends of the paths with each shape, but for the plain one and what follows."""

OPENAI_MODEL: Final = "/v1/models/"
"""What a path of OpenAI's about one model has in it."""

KSERVE_END: Final = ":predict"
"""The end of paths of KServe's first protocol below OPENAI_MODEL, which has a sentence as `error`."""


def shape_of(path: str) -> Shape:
    """Return the shape of errors at `path`, which may lack what is in front of a verb."""
    path = f"/{path.strip('/')}"
    if path.endswith(KSERVE_END):
        return Shape.PLAIN
    if OPENAI_MODEL in path:
        return Shape.OPENAI
    return next((shape for shape, ends in PATH_ENDS.items() if path.endswith(ends)), Shape.PLAIN)


def error_reply(path: str, error: ServingError) -> Reply:
    """Return the reply for an error of a request to `path`, which may lack what is in front of a verb."""
    body = to_json(error_document(shape_of(path), error))
    return Reply(body, JSON_TYPE, error.status, dict(error.headers))


def error_document(shape: Shape, error: ServingError) -> dict[str, Any]:
    """Return the body of an error as a JSON object."""
    plain = error.document
    if shape is Shape.OPENAI:
        return {"error": _openai(error)}
    if shape is Shape.RERANK:
        sentence = str(error)
        return plain | {"error_type": _tei_type(error), "message": sentence, "detail": sentence}
    if shape is Shape.TEXT_EMBEDDINGS:
        return plain | {"error_type": _tei_type(error)}
    if shape is Shape.TEXT_GENERATION:
        return plain | {"error_type": _tgi_type(error)}
    return plain


def _openai(error: ServingError) -> dict[str, Any]:
    kind = "invalid_request_error" if error.status < 429 else "server_error"
    if error.status == 429:
        kind = "rate_limit_error"
    member = error.member if isinstance(error, InvalidInputError) else ""
    return {"message": str(error), "type": kind, "param": member or None, "code": error.code, **error.details}


def _tei_type(error: ServingError) -> str:
    if error.status == 429:
        return "overloaded"
    if error.status == 503:
        return "unhealthy"
    return "validation" if error.status < 500 else "backend"


def _tgi_type(error: ServingError) -> str:
    """Return the word by which huggingface_hub chooses the exception (inference/_common.py)."""
    if error.status in (429, 503):
        return "overloaded"
    return "validation" if error.status < 500 and error.status != 408 else "generation"
