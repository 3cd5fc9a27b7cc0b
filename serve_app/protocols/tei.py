"""Text Embeddings Inference's `POST /embed`: texts in, a bare list of vectors out.

Errors have the shape of the other protocols; their `error` is a sentence in Text Embeddings Inference, too.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError
from pydantic_core import to_json

from serve_app.contract import StrictModel, Task
from serve_app.engine.base import Engine
from serve_app.http.errors import JSON_TYPE, InvalidInputError, Reply
from serve_app.protocols.predict import raise_for_body
from serve_app.text import quoted


def _as_list(inputs: Any) -> list[Any]:
    """Return one text as a list; a list's members are checked afterwards."""
    if isinstance(inputs, str):
        return [inputs]
    if not isinstance(inputs, list):
        raise ValueError(f"got {quoted(inputs)}; must be a text or a list of texts")
    return inputs


class EmbedRequest(StrictModel):
    """One request. Members that would change the vectors and are not known here are refused."""

    inputs: Annotated[list[str], BeforeValidator(_as_list)]
    truncate: bool | None = None
    normalize: bool | None = None


async def embed(engine: Engine, body: bytes) -> Reply:
    """Answer an embed request with one vector for each text, normalized unless the request says otherwise."""
    _require_embeddings(engine)
    try:
        request = EmbedRequest.model_validate_json(body)
    except ValidationError as error:
        raise_for_body(error)
    _require_truncation(engine, request.truncate)
    predictions = await engine.predict(request.inputs, {"normalize": request.normalize is not False})
    vectors = [prediction["embedding"] for prediction in predictions]
    return Reply(to_json(vectors, inf_nan_mode="null"), JSON_TYPE)


def _require_embeddings(engine: Engine) -> None:
    if engine.args.task != Task.FEATURE_EXTRACTION:
        raise InvalidInputError(
            f"{engine.args.name} is an endpoint of {engine.args.task}; "
            f"embed asks for one of {Task.FEATURE_EXTRACTION}"
        )


def _require_truncation(engine: Engine, truncate: bool | None) -> None:
    """Refuse another truncation than the endpoint's; all requests of an engine have one limit."""
    if truncate in (None, engine.input_limit.truncate):
        return
    does = "truncates" if engine.input_limit.truncate else "does not truncate"
    raise InvalidInputError(
        f"truncate: got {str(truncate).lower()}, and this endpoint {does} texts that are too long; "
        "leave it out, or set limits.truncateInput on the endpoint"
    )
