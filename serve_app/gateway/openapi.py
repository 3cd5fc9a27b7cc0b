"""`GET /openapi.json`: an OpenAPI 3.1 document, made from the routes and from the models that parse requests.

Paths and methods are those of the routes. Bodies and the parameters of tasks are those of the pydantic
models that parse requests; statuses are those of the classes in `http/errors.py`. OPERATIONS adds one
sentence and the models for each path. Replicas answer the same paths, below their own prefix.

`x-tasks` names the schema of each task's parameters.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.gateway import answers
from serve_app.http.errors import JSON_TYPE, ServingError
from serve_app.parameters import PARAMETERS
from serve_app.protocols.open_inference import BINARY_TYPE, HEADER_LENGTH, InferRequest
from serve_app.protocols.predict import PredictRequest
from serve_app.protocols.tei import EmbedRequest

OPENAPI_VERSION: Final = "3.1.0"
PATH: Final = "/openapi.json"

_SCHEMAS: Final = "#/components/schemas/"
_HTTP_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Statuses that no answer of a route carries: another method's, and that of a client that is gone.
_ELSEWHERE: Final = (405, 499)
_OF_QUERIES: Final = (404, 408, 429, 500, 503)


@dataclass(frozen=True)
class Operation:
    """What is said of one path beside its methods: a sentence, the models, and what may be answered.

    `answer` is None for what is no JSON. `errors` are statuses; None means all of them. `binary` says that
    bodies in the form of Triton's binary tensors are taken and given too.
    """

    summary: str
    answer: type[BaseModel] | None = None
    request: type[BaseModel] | None = None
    errors: Sequence[int] | None = ()
    binary: bool = False


OPERATIONS: Final[Mapping[str, Operation]] = {
    "/": Operation("The server's name and version; browsers get a page", answers.ServerInfo),
    "/v2": Operation("The server's name and version", answers.ServerInfo),
    "/health": Operation("Whether the server runs", answers.Live),
    "/v2/health/live": Operation("Whether the server runs", answers.Live),
    "/ready": Operation("Whether the server can route requests", answers.Ready, errors=(503,)),
    "/v2/health/ready": Operation("Whether the server can route requests", answers.Ready, errors=(503,)),
    "/v2/models": Operation("All models with their states", answers.ModelList, errors=(503,)),
    "/predict": Operation(
        "Ask the model that the body names", answers.PredictAnswer, PredictRequest, errors=None
    ),
    "/v2/models/{name}": Operation(
        "A model's tensors, and how it runs", answers.ModelMetadata, errors=_OF_QUERIES
    ),
    "/v2/models/{name}/ready": Operation("Whether a model answers", answers.ModelReady, errors=_OF_QUERIES),
    "/v2/models/{name}/predict": Operation(
        "Ask a model in plain JSON", answers.PredictAnswer, PredictRequest, errors=None
    ),
    "/v2/models/{name}/infer": Operation(
        "Ask a model by the Open Inference Protocol v2",
        answers.InferAnswer,
        InferRequest,
        errors=None,
        binary=True,
    ),
    "/v2/models/{name}/embed": Operation(
        "Embed texts as Text Embeddings Inference does", answers.Vectors, EmbedRequest, errors=None
    ),
    "/page/{file}": Operation("A file of the page for browsers", errors=(404,)),
    PATH: Operation("This document"),
}


def openapi_route(routes: Sequence[Route], title: str, version: str) -> Route:
    """Return the route of the document about `routes` and itself."""

    @cache
    def document() -> bytes:
        return to_json(openapi_document([*routes, route], title, version))

    async def answer(request: Request) -> Response:
        return Response(document(), media_type=JSON_TYPE)

    route = Route(PATH, answer, methods=["GET"])
    return route


def openapi_document(routes: Iterable[Route], title: str, version: str) -> dict[str, Any]:
    """Return the document; a route that OPERATIONS does not know is in it with its path alone."""
    paths: dict[str, Any] = defaultdict(dict)
    for route in routes:
        operation = OPERATIONS.get(route.path, Operation(route.path))
        for method in sorted((route.methods or set()) & set(_HTTP_METHODS)):
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
        "responses": {"200": _answer(operation), **_error_answers(operation.errors)},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    if operation.binary:
        parameters.append({"name": HEADER_LENGTH, "in": "header", "schema": {"type": "integer"}})
    if parameters:
        described["parameters"] = parameters
    if operation.request is not None:
        content = _content(operation.request, operation)
        described["requestBody"] = {"required": True, "content": content}
    return described


def _answer(operation: Operation) -> dict[str, Any]:
    if operation.answer is None:
        return {"description": operation.summary}
    return {"description": operation.summary, "content": _content(operation.answer, operation)}


def _content(model: type[BaseModel], operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {JSON_TYPE: {"schema": _ref(model)}}
    if operation.binary:
        content[BINARY_TYPE] = {}
    return content


def _error_answers(statuses: Sequence[int] | None) -> dict[str, Any]:
    """Return a response for each of `statuses`, or for all that errors have; it lists the codes."""
    codes: dict[int, list[str]] = defaultdict(list)
    for error in sorted(_errors(ServingError), key=lambda error: (error.status, error.code)):
        if error.code not in codes[error.status]:
            codes[error.status].append(error.code)
    content = {JSON_TYPE: {"schema": _ref(answers.ErrorAnswer)}}
    wanted = statuses if statuses is not None else [one for one in codes if one not in _ELSEWHERE]
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
    named: list[type[BaseModel]] = [*PARAMETERS.values(), answers.ErrorAnswer]
    for operation in OPERATIONS.values():
        named += [model for model in (operation.request, operation.answer) if model is not None]
    unique = list(dict.fromkeys(named))
    _, document = models_json_schema(
        [(model, "validation") for model in unique], ref_template=_SCHEMAS + "{model}"
    )
    schemas: dict[str, Any] = _without_null(document["$defs"])
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
