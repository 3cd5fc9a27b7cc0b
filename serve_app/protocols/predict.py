"""The plain JSON protocol: `{"text": …}` or `{"texts": […]}` in, predictions out."""

from typing import Annotated, Any, NoReturn, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import to_json

from serve_app.contract import ParameterValue, StrictModel
from serve_app.engine.base import Engine
from serve_app.http.errors import JSON_TYPE, InvalidInputError, MalformedBodyError, Reply
from serve_app.parameters import PARAMETER_VALUES, is_parameter_value
from serve_app.text import quoted, shortened


class PredictRequest(StrictModel):
    """One request. The gateway needs `model`; a request to the model's own path may leave it out."""

    model: str | None = None
    text: str | None = None
    texts: list[str] | None = None
    parameters: dict[Annotated[str, Field(max_length=64)], ParameterValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_text_and_texts(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise ValueError('give either "text" or "texts"')
        return self


async def predict(engine: Engine, body: bytes) -> Reply:
    """Answer a predict request.

    With `text`, the prediction's members stand beside `model`. With `texts`, `predictions` is a list in the
    order of the texts.
    """
    request = _parse(body)
    if request.model not in (None, engine.args.name):
        raise InvalidInputError(f"model: got {quoted(request.model)}, and this is {engine.args.name!r}")
    texts = request.texts if request.text is None else [request.text]
    predictions = await engine.predict(texts or [], request.parameters)
    answer: dict[str, Any] = {"model": engine.args.name}
    if request.text is None:
        answer["predictions"] = predictions
    else:
        answer |= predictions[0]
    return Reply(to_json(answer, inf_nan_mode="null"), JSON_TYPE)


def _parse(body: bytes) -> PredictRequest:
    try:
        return PredictRequest.model_validate_json(body)
    except ValidationError as error:
        raise_for_body(error)


def raise_for_body(error: ValidationError) -> NoReturn:
    """Raise 400 for a body that is no JSON, and 422 for one that fails validation."""
    problem = error.errors(include_url=False, include_context=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        raise MalformedBodyError(f"the body is not valid JSON: {message}") from error
    location = problem["loc"]
    if problem["type"] == "extra_forbidden":
        message = "unknown field"
    elif is_parameter_value(location):
        location = location[:2]
        message = f"got {quoted(problem['input'])}; must be {PARAMETER_VALUES}"
    where = shortened(".".join(str(part) for part in location))
    raise InvalidInputError(f"{where}: {message}" if where else message) from error
