"""`rerank` in the shapes that clients send, on endpoints of text-ranking.

- Text Embeddings Inference and Hugging Face: `{"query", "texts"}`, answered with a bare list, best first.
- Jina and Cohere, and servers that follow them: `{"model", "query", "documents", "top_n"}`, answered with
  `results`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import from_json

from serve_app.contract import StrictModel, Task
from serve_app.engine.base import Answer, Engine, TextPair
from serve_app.http.errors import InvalidInputError, Reply
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.inputs import require_model, require_task
from serve_app.text import quoted


class TextsRequest(StrictModel):
    """The request of Text Embeddings Inference; `raw_scores` asks for the model's numbers themselves.

    Texts are truncated at their right end only.
    """

    model: str | None = None
    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] = "right"


def _document(value: Any) -> Any:
    """Return the text of a document, which may be an object with nothing else."""
    if isinstance(value, dict):
        if list(value) != ["text"]:
            raise ValueError(f"got {quoted(value)}; must be a text, or an object with text alone")
        return value["text"]
    return value


class DocumentsRequest(StrictModel):
    """The request of Jina and Cohere. What would cut documents in another way is refused."""

    model: str | None = None
    query: str
    documents: list[Annotated[str, BeforeValidator(_document, json_schema_input_type=str | dict[str, str])]]
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False


async def rerank(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
    """Answer with the score of each document for the query, best first; equal ones stay in their order."""
    require_task(engine, Task.TEXT_RANKING, "rerank")
    request = _parse(body)
    require_model(engine, request.model)
    if isinstance(request, TextsRequest):
        function = {"function_to_apply": "none"} if request.raw_scores else {}
        answer = await _score(engine, request.query, request.texts, function, request.truncate)
        return Reply.of_json([_row(request, index, score) for index, score in _ranked(answer)])
    answer = await _score(engine, request.query, request.documents, {})
    document = {
        "object": "list",
        "model": engine.args.name,
        "results": [_result(request, index, score) for index, score in _ranked(answer)[: request.top_n]],
        "usage": {"total_tokens": answer.tokens, "prompt_tokens": answer.tokens},
    }
    return Reply.of_json(document)


def _parse(body: bytes) -> TextsRequest | DocumentsRequest:
    """Return the request in the shape that it has by its member `texts` or `documents`."""
    try:
        document = from_json(body)
    except ValueError:
        document = None
    both = isinstance(document, dict) and "texts" in document and "documents" in document
    if both:
        raise InvalidInputError('give either "texts" or "documents"')
    has_texts = isinstance(document, dict) and "texts" in document
    shape: type[TextsRequest | DocumentsRequest] = TextsRequest if has_texts else DocumentsRequest
    return parse_body(shape, body)


async def _score(
    engine: Engine,
    query: str,
    texts: Sequence[str],
    parameters: Mapping[str, Any],
    truncate: bool | None = None,
) -> Answer:
    return await engine.answer([TextPair(query, text) for text in texts], parameters, truncate)


def _ranked(answer: Answer) -> list[tuple[int, float]]:
    scores = [prediction["score"] for prediction in answer.predictions]
    return sorted(enumerate(scores), key=lambda each: -each[1])


def _row(request: TextsRequest, index: int, score: float) -> dict[str, Any]:
    text = {"text": request.texts[index]} if request.return_text else {}
    return {"index": index, "score": score, **text}


def _result(request: DocumentsRequest, index: int, score: float) -> dict[str, Any]:
    document = {"document": {"text": request.documents[index]}} if request.return_documents else {}
    return {"index": index, "relevance_score": score, **document}
