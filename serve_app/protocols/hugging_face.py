"""Hugging Face's inference API: `POST {"inputs", "parameters"}` to the model's own path, for every task.

So `huggingface_hub.InferenceClient(model=URL)` works with that path as URL. Answers have the shapes that its
methods read (huggingface_hub, inference/_generated/types). An embedding endpoint also compares sentences.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field

from serve_app.contract import StrictModel, Task
from serve_app.engine.base import Engine, Input, Prediction
from serve_app.http.errors import InvalidInputError, Reply
from serve_app.http.streaming import StreamedReply
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.generation.text_generation_inference import generate, sampled
from serve_app.protocols.inputs import ALL_LABELS, input_of, require_task
from serve_app.protocols.vectors import cut
from serve_app.text import quoted

# Of transformers' text generation server; false is what is done anyway.
_SWITCHES: Final = ("details", "decoder_input_details", "watermark", "clean_up_tokenization_spaces")


class InferenceRequest(StrictModel):
    """One request. `options` say how long to wait for a model, which is not up to the client here."""

    inputs: Any
    parameters: dict[str, Any] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)
    stream: bool = False
    # Of embeddings; the client has these beside `inputs`.
    normalize: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] | None = None
    dimensions: int | None = Field(default=None, ge=1)


async def inference(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply | StreamedReply:
    """Answer one input, or a list of them, in the task's shape; a text that is generated may be streamed."""
    request = parse_body(InferenceRequest, body)
    generates = engine.args.task is Task.TEXT_GENERATION
    if generates and (request.stream or request.parameters.get("details")):
        return await generate(engine, body, stream=request.stream, path="")
    if request.stream:
        raise InvalidInputError(
            f"stream: got true; answers of {engine.args.task} are not streamed, so leave it out"
        )
    if isinstance(request.inputs, dict) and "source_sentence" in request.inputs:
        return Reply.of_json(await _similarities(engine, request.inputs))
    parameters, truncate = _parameters(engine, request)
    several = isinstance(request.inputs, list)
    values = request.inputs if several else [request.inputs]
    where = "inputs[{}]" if several else "inputs"
    inputs: list[Input] = [
        input_of(value, engine, where.format(number)) for number, value in enumerate(values)
    ]
    if request.dimensions is not None:
        require_task(engine, Task.FEATURE_EXTRACTION, "dimensions")
    answer = await engine.answer(inputs, parameters, truncate)
    if request.dimensions is not None:
        vectors = [cut(prediction["embedding"], request.dimensions) for prediction in answer.predictions]
        return Reply.of_json(vectors)
    return Reply.of_json(_rendered(engine.args.task, answer.predictions, several))


def _parameters(engine: Engine, request: InferenceRequest) -> tuple[dict[str, Any], bool | None]:
    """Return the task's parameters, and whether to truncate, by the names that this API has for them."""
    parameters = {name: value for name, value in request.parameters.items() if value is not None}
    if request.normalize is not None:
        parameters["normalize"] = request.normalize
    for name in _SWITCHES:
        if parameters.get(name) is False:
            del parameters[name]
    generation = parameters.pop("generate_parameters", {})
    if not isinstance(generation, dict):
        raise InvalidInputError(
            f"parameters.generate_parameters: got {quoted(generation)}; must be an object"
        )
    parameters |= generation
    truncate = parameters.pop("truncate", request.truncate)
    if not isinstance(truncate, bool | None):
        raise InvalidInputError(f"parameters.truncate: got {quoted(truncate)}; must be true or false")
    if engine.args.task is Task.TEXT_CLASSIFICATION:
        parameters.setdefault("top_k", ALL_LABELS)
    if engine.args.task is Task.TEXT_GENERATION:
        parameters = sampled(parameters)
    return parameters, truncate


def _rendered(task: Task, predictions: Sequence[Prediction], several: bool) -> Any:
    """Return the predictions as the task's method of the client reads them."""
    if task in _ALWAYS_LISTS:
        return [_ALWAYS_LISTS[task](prediction) for prediction in predictions]
    render = _ONE.get(task, dict)
    rendered = [render(prediction) for prediction in predictions]
    return rendered if several else rendered[0]


def _top(prediction: Prediction) -> Any:
    return prediction["top"]


def _entities(prediction: Prediction) -> Any:
    return prediction["entities"]


def _labels(prediction: Prediction) -> list[dict[str, Any]]:
    pairs = zip(prediction["labels"], prediction["scores"], strict=True)
    return [{"label": label, "score": score} for label, score in pairs]


def _fills(prediction: Prediction) -> list[Any]:
    """Return the fills of the one mask, or a list for each mask, as transformers' pipeline does."""
    masks: dict[int, list[Any]] = {}
    for fill in prediction["fills"]:
        element = {"score": fill["score"], "token": fill["token_id"], "token_str": fill["token"]}
        masks.setdefault(fill["mask"], []).append({**element, "sequence": fill["sequence"]})
    rows = list(masks.values())
    return rows[0] if len(rows) == 1 else rows


def _spans(prediction: Prediction) -> Any:
    """Return the best answer; with `top_k`, all of them, unless that is one."""
    answers = prediction.pop("answers", [prediction])
    return answers[0] if len(answers) == 1 else answers


def _vector(prediction: Prediction) -> Any:
    return prediction["embedding"]


# Of these tasks, one input too is answered with a list of one.
_ALWAYS_LISTS: Final[Mapping[Task, Callable[[Prediction], Any]]] = {
    Task.TEXT_CLASSIFICATION: _top,
    Task.FEATURE_EXTRACTION: _vector,
    Task.TEXT_GENERATION: dict,
    Task.TEXT2TEXT_GENERATION: dict,
    Task.SUMMARIZATION: dict,
    Task.TRANSLATION: dict,
}
_ONE: Final[Mapping[Task, Callable[[Prediction], Any]]] = {
    Task.TOKEN_CLASSIFICATION: _entities,
    Task.ZERO_SHOT_CLASSIFICATION: _labels,
    Task.FILL_MASK: _fills,
    Task.QUESTION_ANSWERING: _spans,
}


async def _similarities(engine: Engine, inputs: Mapping[str, Any]) -> list[float]:
    """Return the cosine of one sentence and each of the others."""
    if engine.args.task is not Task.FEATURE_EXTRACTION:
        raise InvalidInputError(
            f"inputs.source_sentence: {engine.args.name} is an endpoint of {engine.args.task}; sentences are "
            f"compared by one of {Task.FEATURE_EXTRACTION}"
        )
    source, others = inputs["source_sentence"], inputs.get("sentences")
    if not isinstance(others, list) or set(inputs) != {"source_sentence", "sentences"}:
        raise InvalidInputError(
            'inputs: must have "source_sentence", a text, and "sentences", a list of texts'
        )
    texts = [input_of(each, engine, "inputs") for each in (source, *others)]
    vectors = [each["embedding"] for each in await engine.predict(texts, {"normalize": True})]
    first, *rest = np.asarray(vectors, dtype=np.float64)
    similarities: list[float] = [float(first @ other) for other in rest]
    return similarities
