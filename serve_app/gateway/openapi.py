"""`GET /openapi.json`: an OpenAPI 3.1 document, made from the routes and from the models that parse requests.

Paths and methods are those of the routes. Bodies and the parameters of tasks are those of the pydantic
models that parse requests; statuses are those of the classes in `http/errors.py`. `operations.py` has one
sentence and the models for each route. Replicas answer the same paths, below their own prefix.

`x-tasks` names the schema of each task's parameters.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.gateway import answers
from serve_app.gateway.operations import OPENAPI_PATH, OPERATIONS, Models, Operation
from serve_app.http.errors import JSON_TYPE, ServingError
from serve_app.http.streaming import EVENTS_TYPE
from serve_app.parameters import PARAMETERS
from serve_app.protocols.open_inference import BINARY_TYPE, HEADER_LENGTH
from serve_app.protocols.predict import PredictRequest

OPENAPI_VERSION: Final = "3.1.0"

_SCHEMAS: Final = "#/components/schemas/"
_HTTP_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Statuses that no answer of a route carries: another method's, and that of a client that is gone.
_ELSEWHERE: Final = (405, 499)


def openapi_route(routes: Sequence[Route], title: str, version: str) -> Route:
    """Return the route of the document about `routes` and itself."""

    @cache
    def document() -> bytes:
        return to_json(openapi_document([*routes, route], title, version))

    async def answer(request: Request) -> Response:
        return Response(document(), media_type=JSON_TYPE)

    route = Route(OPENAPI_PATH, answer, methods=["GET"])
    return route


def openapi_document(routes: Iterable[Route], title: str, version: str) -> dict[str, Any]:
    """Return the document; a route that OPERATIONS does not know is in it with its path alone."""
    paths: dict[str, Any] = defaultdict(dict)
    for route in routes:
        for method in sorted((route.methods or set()) & set(_HTTP_METHODS)):
            operation = OPERATIONS.get((method, route.path), Operation(route.path))
            paths[route.path][method.lower()] = _operation(route.path, method, operation)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": title, "version": version},
        "paths": dict(paths),
        "components": {"schemas": _schemas()},
        "x-tasks": {task: {"parameters": _ref(model)} for task, model in PARAMETERS.items()},
    }


def _operation(path: str, method: str, operation: Operation) -> dict[str, Any]:
    words = re.findall(r"\w+", path) or ["root"]
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": "_".join([method.lower(), *words]),
        "responses": {"200": _answer(operation), **_error_answers(operation)},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    if operation.binary:
        parameters.append({"name": HEADER_LENGTH, "in": "header", "schema": {"type": "integer"}})
    if parameters:
        described["parameters"] = parameters
    if operation.requests:
        content = _content(operation.requests, operation)
        described["requestBody"] = {"required": True, "content": content}
    return described


def _answer(operation: Operation) -> dict[str, Any]:
    content = _content(operation.answers, operation) if operation.answers else {}
    if operation.streamed:
        # OpenAPI 3.1 has no word for events; the schema is that of the data of each.
        content[EVENTS_TYPE] = {"schema": _one_of(operation.streamed)}
    return {"description": operation.summary} | ({"content": content} if content else {})


def _one_of(models: Models) -> dict[str, Any]:
    schemas = [_ref(model) for model in models]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _content(models: Models, operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {JSON_TYPE: {"schema": _one_of(models)}}
    if operation.binary:
        content[BINARY_TYPE] = {}
    return content


def _error_answers(operation: Operation) -> dict[str, Any]:
    """Return a response for each status of an operation's errors; it lists the codes."""
    codes: dict[int, list[str]] = defaultdict(list)
    for error in sorted(_errors(ServingError), key=lambda error: (error.status, error.code)):
        if error.code not in codes[error.status]:
            codes[error.status].append(error.code)
    content = {JSON_TYPE: {"schema": _ref(operation.error)}}
    wanted = operation.errors
    if wanted is None:
        wanted = [status for status in codes if status not in _ELSEWHERE]
    return {
        str(status): {"description": "code: " + " or ".join(codes[status]), "content": content}
        for status in sorted(wanted)
    }


def _errors(base: type[ServingError]) -> Iterator[type[ServingError]]:
    yield base
    for error in base.__subclasses__():
        yield from _errors(error)


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMAS + model.__name__}


def _schemas() -> dict[str, Any]:
    """Return the schema of each model that is named anywhere in the document."""
    named: list[type[BaseModel]] = [*PARAMETERS.values()]
    for operation in OPERATIONS.values():
        named += [*operation.requests, *operation.answers, *operation.streamed, operation.error]
    unique = list(dict.fromkeys(named))
    _, document = models_json_schema(
        [(model, "validation") for model in unique], ref_template=_SCHEMAS + "{model}"
    )
    # In an answer, null says something.
    schemas: dict[str, Any] = {
        name: schema if hasattr(answers, name) else _without_null(schema)
        for name, schema in document["$defs"].items()
    }
    of_tasks = [_ref(model) for model in dict.fromkeys(PARAMETERS.values())]
    schemas[PredictRequest.__name__]["properties"]["parameters"] = {
        "description": "The parameters of the model's task.",
        "anyOf": of_tasks,
    }
    return schemas


def _without_null(schema: Any) -> Any:
    """Return `schema` without null, which is refused or means the same as leaving the member out."""
    if isinstance(schema, list):
        return [_without_null(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _without_null(value) for key, value in schema.items()}
    alternatives = plain.get("anyOf", [])
    kept = [each for each in alternatives if each != {"type": "null"}]
    if len(kept) == len(alternatives):
        return plain
    if plain.get("default", ...) is None:
        del plain["default"]
    if len(kept) == 1:
        del plain["anyOf"]
        return plain | kept[0]
    return plain | {"anyOf": kept}
