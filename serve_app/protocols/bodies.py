"""From a JSON body to the request of a protocol; what is wrong with it becomes one sentence."""

from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from serve_app.http.errors import InvalidInputError, MalformedBodyError
from serve_app.parameters import PARAMETER_VALUES, is_parameter_value
from serve_app.text import quoted, shortened

Request = TypeVar("Request", bound=BaseModel)


def parse_body(shape: type[Request], body: bytes) -> Request:
    """Return the request; raise 400 for a body that is no JSON, and 422 for one that is no `shape`."""
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        _raise_for(error)


def _raise_for(error: ValidationError) -> NoReturn:
    problem = error.errors(include_url=False, include_context=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        raise MalformedBodyError(f"the body is not valid JSON: {message}") from error
    location = problem["loc"]
    if problem["type"] == "extra_forbidden":
        message = "unknown field"
    # A protocol that has parameters of its own says itself what they may be.
    elif is_parameter_value(location) and len(location) > 2 and isinstance(location[2], str):
        location = location[:2]
        message = f"got {quoted(problem['input'])}; must be {PARAMETER_VALUES}"
    where = shortened(".".join(str(part) for part in location))
    raise InvalidInputError(f"{where}: {message}" if where else message, member=where) from error
