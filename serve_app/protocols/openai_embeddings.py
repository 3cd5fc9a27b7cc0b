"""OpenAI's `POST /v1/embeddings` on endpoints of feature-extraction (API reference, "Create embeddings").

The vectors have length 1, as OpenAI's have, whatever the endpoint's parameters say.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from serve_app.contract import StrictModel, Task
from serve_app.engine.base import Engine
from serve_app.http.errors import Reply
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.inputs import as_list, require_model, require_task
from serve_app.protocols.vectors import cut, written


def _texts(value: Any) -> list[Any]:
    """Return one text as a list. Token ids are refused, because they say nothing without their tokenizer."""
    texts = as_list(value)
    if any(isinstance(each, int | list) for each in texts):
        raise ValueError(
            "got token ids, and which tokenizer they are of is not known; send texts (OpenAIEmbeddings of "
            "LangChain does so with check_embedding_ctx_length=False)"
        )
    return texts


class EmbeddingsRequest(StrictModel):
    """One request. `user` names the caller and changes nothing; other members are refused."""

    model: str | None = None
    input: Annotated[list[str], BeforeValidator(_texts, json_schema_input_type=str | list[str])]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None


async def embeddings(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
    """Answer with one vector of length 1 for each text, and the number of tokens that were read."""
    require_task(engine, Task.FEATURE_EXTRACTION, "embeddings")
    request = parse_body(EmbeddingsRequest, body)
    require_model(engine, request.model)
    answer = await engine.answer(request.input, {"normalize": True})
    vectors = [cut(prediction["embedding"], request.dimensions) for prediction in answer.predictions]
    document = {
        "object": "list",
        "model": engine.args.name,
        "data": [
            {"object": "embedding", "index": index, "embedding": written(vector, request.encoding_format)}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens},
    }
    return Reply.of_json(document)
