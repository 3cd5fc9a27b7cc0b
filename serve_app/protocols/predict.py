"""The plain JSON protocol: `{"text": …}` or `{"texts": […]}` in, predictions out.

Tasks that read two texts together name them in their own way: `{"question": …, "context": …}`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from serve_app.contract import ParameterValue, StrictModel
from serve_app.engine.base import Engine, Input, TextPair
from serve_app.http.errors import InvalidInputError, Reply
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.inputs import input_of, require_model
from serve_app.text import quoted


class PredictRequest(StrictModel):
    """One request. The gateway needs `model`; a request to the model's own path may leave it out."""

    model: str | None = None
    text: str | None = None
    text_pair: str | None = None
    query: str | None = None
    question: str | None = None
    context: str | None = None
    # Each is checked when the task is known.
    texts: list[Any] | None = None
    parameters: dict[Annotated[str, Field(max_length=64)], ParameterValue] = Field(default_factory=dict)


_NAMES: Final = ("text", "text_pair", "query", "question", "context")


async def predict(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
    """Answer a predict request.

    The prediction for one input stands beside `model`. With `texts`, `predictions` is a list in their order.
    """
    request = parse_body(PredictRequest, body)
    require_model(engine, request.model)
    predictions = await engine.predict(_inputs(request, engine), request.parameters)
    answer: dict[str, Any] = {"model": engine.args.name}
    if request.texts is not None:
        answer["predictions"] = predictions
    else:
        answer |= predictions[0]
    return Reply.of_json(answer)


def _inputs(request: PredictRequest, engine: Engine) -> list[Input]:
    """Return the inputs: one whose texts are members of the request, or one for each of `texts`.

    Of a pair, the first text may stand beside `texts`, which are then the second ones: one query, many texts.
    """
    given = {name: text for name in _NAMES if (text := getattr(request, name)) is not None}
    if request.texts is None and given:
        return [input_of(given, engine, "the request")]
    first, *others = engine.model.input_names
    if request.texts is None or (given and (list(given) != [first] or first == "text" or not others)):
        raise InvalidInputError(f'give either "{first}" or "texts"')
    if not given:
        return [input_of(each, engine, f"texts[{number}]") for number, each in enumerate(request.texts)]
    for number, each in enumerate(request.texts):
        if not isinstance(each, str):
            raise InvalidInputError(f"texts[{number}]: got {quoted(each)}; beside {first}, it must be a text")
    return [TextPair(given[first], str(each)) for each in request.texts]
