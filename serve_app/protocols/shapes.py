"""Errors as each protocol has them: which protocol a path belongs to, and the body of an error there.

Every shape has the sentence. OpenAI's is `{"error": {"message", "type", "param", "code"}}` (API reference,
"Error codes"). The servers of Hugging Face add `error_type` to a sentence in `error`; Cohere reads `message`
and Jina `detail`, so the answers of `rerank` have all of these.
"""

from typing import Any, Final

from pydantic_core import to_json

from serve_app.http.errors import JSON_TYPE, InvalidInputError, Reply, ServingError
from serve_app.http.streaming import data_event

_OPENAI_PATHS: Final = ("/v1/embeddings", "/v1/models", "/v1/chat/completions", "/v1/completions")
_TGI_PATHS: Final = ("/generate", "/generate_stream")


def error_reply(path: str, error: ServingError) -> Reply:
    """Return the reply for an error of a request to `path`, which may lack what is in front of a verb."""
    path = f"/{path.strip('/')}"
    # KServe's first protocol has a path below OpenAI's, and a sentence as `error`.
    openais = path.endswith(_OPENAI_PATHS) or "/v1/models/" in path
    if openais and not path.endswith(":predict"):
        return _reply(error, {"error": _openai(error)})
    plain = error.document
    if path.endswith("/rerank"):
        sentence = str(error)
        others = {"error_type": _tei_type(error), "message": sentence, "detail": sentence}
        return _reply(error, plain | others)
    if path.endswith("/embed"):
        return _reply(error, plain | {"error_type": _tei_type(error)})
    if path.endswith(_TGI_PATHS):
        return _reply(error, plain | {"error_type": _tgi_type(error)})
    return _reply(error, plain)


def error_event(path: str, error: ServingError) -> bytes:
    """Return the event that ends the stream of a request to `path`; its data is the body of the error.

    The client of OpenAI raises APIError for data with `error`, that of Hugging Face by its `error_type`.
    """
    # The streams of a model's own path are those of generate_stream.
    return data_event(error_reply(path or "generate_stream", error).body)


def _reply(error: ServingError, document: dict[str, Any]) -> Reply:
    return Reply(to_json(document), JSON_TYPE, error.status, dict(error.headers))


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
