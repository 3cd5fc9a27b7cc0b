"""Errors as each protocol has them: which protocol a path belongs to, and the body of an error there.

Every shape has the sentence. OpenAI's is `{"error": {"message", "type", "param", "code"}}` (API reference,
"Error codes"). Text Embeddings Inference adds `error_type` to a sentence in `error`; Cohere reads `message`
and Jina `detail`, so the answers of `rerank` have all of these.
"""

from typing import Any, Final

from pydantic_core import to_json

from serve_app.http.errors import JSON_TYPE, Reply, ServingError

_OPENAI_PATHS: Final = ("/v1/embeddings", "/v1/models")


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
    return _reply(error, plain)


def _reply(error: ServingError, document: dict[str, Any]) -> Reply:
    return Reply(to_json(document), JSON_TYPE, error.status, dict(error.headers))


def _openai(error: ServingError) -> dict[str, Any]:
    kind = "invalid_request_error" if error.status < 429 else "server_error"
    if error.status == 429:
        kind = "rate_limit_error"
    return {"message": str(error), "type": kind, "param": None, "code": error.code, **error.details}


def _tei_type(error: ServingError) -> str:
    if error.status == 429:
        return "overloaded"
    if error.status == 503:
        return "unhealthy"
    return "validation" if error.status < 500 else "backend"
