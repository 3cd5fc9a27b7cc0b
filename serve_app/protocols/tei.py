"""Text Embeddings Inference's `POST /embed` and `POST /predict`, and what `GET /info` says of the model."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import from_json

from serve_app.contract import MAX_TEXTS_PER_REQUEST, StrictModel, Task
from serve_app.engine.base import Engine, Input, TextPair
from serve_app.http.errors import InvalidInputError, Reply
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.inputs import ALL_LABELS, as_list, require_task
from serve_app.text import quoted


class EmbedRequest(StrictModel):
    """One request. Members that would change the vectors and are not known here are refused."""

    inputs: Annotated[list[str], BeforeValidator(as_list, json_schema_input_type=str | list[str])]
    truncate: bool | None = None
    normalize: bool | None = None


async def embed(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
    """Answer an embed request with one vector for each text, normalized unless the request says otherwise."""
    require_task(engine, Task.FEATURE_EXTRACTION, "embed")
    request = parse_body(EmbedRequest, body)
    parameters = {"normalize": request.normalize is not False}
    answer = await engine.answer(request.inputs, parameters, request.truncate)
    return Reply.of_json([prediction["embedding"] for prediction in answer.predictions])


class ClassifyRequest(StrictModel):
    """One request: a text, a pair as a list of two texts, or a list with a list for each text or pair."""

    inputs: str | list[str] | list[list[str]]
    truncate: bool | None = None
    raw_scores: bool = False


def is_classify_request(body: bytes) -> bool:
    """Return whether a body sent to `predict` is Text Embeddings Inference's and not this project's own."""
    if b'"inputs"' not in body:
        return False
    try:
        document = from_json(body)
    except ValueError:
        return False
    return isinstance(document, dict) and "inputs" in document


async def classify(engine: Engine, body: bytes) -> Reply:
    """Answer with all labels and scores, best first: one list, or one for each list of `inputs`."""
    require_task(engine, Task.TEXT_CLASSIFICATION, "predict with inputs")
    request = parse_body(ClassifyRequest, body)
    nested = isinstance(request.inputs, list) and any(isinstance(each, list) for each in request.inputs)
    rows: list[Any] = list(request.inputs) if nested else [request.inputs]
    inputs = [_text_or_pair(row) for row in rows]
    parameters: dict[str, Any] = {"top_k": ALL_LABELS}
    if request.raw_scores:
        parameters["function_to_apply"] = "none"
    answer = await engine.answer(inputs, parameters, request.truncate)
    answers = [prediction["top"] for prediction in answer.predictions]
    return Reply.of_json(answers if nested else answers[0])


def _text_or_pair(row: str | list[str]) -> Input:
    texts = [row] if isinstance(row, str) else row
    if len(texts) not in (1, 2):
        raise InvalidInputError(f"inputs: got {quoted(row)}; must be one text, or two that are a pair")
    return TextPair(*texts) if len(texts) == 2 else texts[0]


def info(engine: Engine) -> Reply:
    """Return what Text Embeddings Inference says of its one model, as far as there is the like here."""
    kinds: dict[Task, dict[str, Any]] = {
        Task.FEATURE_EXTRACTION: {"embedding": {"pooling": engine.model.description.get("pooling")}},
        Task.TEXT_RANKING: {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
    }
    labels = engine.model.description.get("labels", [])
    classifier = {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    limit = engine.input_limit
    return Reply.of_json(
        {
            "model_id": engine.args.name,
            "model_sha": engine.commit or None,
            "model_dtype": engine.model.description.get("dtype"),
            "model_type": kinds.get(engine.args.task, {"classifier": classifier}),
            "max_input_length": limit.max_tokens,
            "max_client_batch_size": MAX_TEXTS_PER_REQUEST,
            "auto_truncate": limit.truncate,
        }
    )
