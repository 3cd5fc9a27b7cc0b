"""The application at `/`, which always exists: one address for all models, and the health of the server.

HAProxy sends most requests straight to a replica of the model (`http/haproxy.py`). Requests for models
without a replica, and requests in which HAProxy finds no model, come here.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json
from ray import serve
from ray.serve import Application
from ray.serve.context import _get_global_client
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from serve_app.access.folder import AccessFolder
from serve_app.contract import DEPLOYMENT_OPTIONS, GATEWAY_DEPLOYMENT, GatewayArgs
from serve_app.gateway.browser_page import for_browsers, page_route
from serve_app.gateway.model_index import ModelIndex, ModelState
from serve_app.gateway.openapi import openapi_route
from serve_app.gateway.proxy_watch import ProxyWatch
from serve_app.gateway.relay import Relay
from serve_app.gateway.repository import repository_routes
from serve_app.gateway.rpc import Gate, answer_rpc
from serve_app.gateway.server import EXTENSIONS, SERVER_NAME, SERVER_VERSION
from serve_app.gateway.usage import usage_route
from serve_app.gateway.visible_models import VisibleModels
from serve_app.http.app import application, response
from serve_app.http.body import MediaTypes, read_body
from serve_app.http.disconnect import cancel_on_disconnect
from serve_app.http.entrances import ENTRANCES
from serve_app.http.errors import (
    JSON_TYPE,
    InvalidInputError,
    MalformedBodyError,
    Reply,
    ServingError,
)
from serve_app.http.shapes import error_reply
from serve_app.protocols import INFO, MEDIA_TYPES, METADATA, VERBS, may_stream
from serve_app.protocols.kserve_v1 import V1_PREDICT
from serve_app.protocols.versions import version_routes
from serve_app.replica.own_answers import OwnAnswers, note_body, noting
from serve_app.replica.telemetry import Telemetry
from serve_app.rpc.service import InferenceMethods
from serve_app.text import quoted


@serve.deployment(name=GATEWAY_DEPLOYMENT, **DEPLOYMENT_OPTIONS)
@serve.ingress()
class Gateway(InferenceMethods):
    """Finds the model that a request names and relays the request to it."""

    _telemetry: Telemetry | None = None

    def __init__(self) -> None:
        self._index = ModelIndex(_applications)
        self._visible = VisibleModels(self._index, AccessFolder.of_environment())
        self._relay = Relay(self._index)
        self._own = OwnAnswers()
        self._telemetry = Telemetry(self._own.observers, "", serve.get_replica_context().replica_tag)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Build the gateway's ASGI app. Serve calls this once, after `__init__`."""
        return ProxyWatch(gateway_application(self._index, self._relay, self._visible, self._own))

    async def __del__(self) -> None:
        """Hand over what is logged and traced. Serve awaits this after the last request."""
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.close)

    async def answer_rpc(self, method: str, request: bytes, metadata: Mapping[str, str]) -> Reply:
        gate = Gate(self._index, self._visible, self._relay, metadata)
        return await self._own.answer_rpc(
            method, request, metadata, lambda: answer_rpc(gate, method, request)
        )


def _applications() -> Mapping[str, Any]:
    """Return what Serve's REST interface says of each application; blocks."""
    # `serve.status()` makes the same call, and leaves out the configuration of the models.
    applications: Mapping[str, Any] = _get_global_client().get_serve_details()["applications"]
    return applications


def gateway_application(
    index: ModelIndex,
    relay: Relay,
    visible: VisibleModels | None = None,
    own: OwnAnswers | None = None,
) -> ASGIApp:
    """Return the gateway's ASGI application; without `visible`, every client may ask every model.

    `own` is told of requests that the gateway answers itself.
    """
    visible = visible or VisibleModels(index, AccessFolder(None))
    models = _model_routes(visible, relay)
    versions = version_routes(models, "/v2/models/{name}")
    routes = [
        *_server_routes(index, visible),
        *repository_routes(visible),
        *_openai_routes(visible),
        *models,
        *(_guarded(route, visible) for route in versions),
        usage_route(time.time, visible),
        page_route(),
    ]

    def told(path: str, error: ServingError) -> Reply:
        if own is not None:
            own.note_error(path, error)
        return error_reply(path, error)

    routes.append(openapi_route(routes, SERVER_NAME, SERVER_VERSION))
    app = application([noting(route) for route in routes], told)
    return app if own is None else own.watched(app)


def _guarded(route: Route, visible: VisibleModels) -> Route:
    """Return a route of one model, which answers only those who may ask it."""

    async def handle(request: Request) -> Response:
        await visible.require(request.headers, request.path_params["name"])
        answer: Response = await route.endpoint(request)
        return answer

    return Route(route.path, handle, methods=list(route.methods or ()))


def _server_routes(index: ModelIndex, visible: VisibleModels) -> list[Route]:
    """Return the routes for the server as a whole."""

    async def server(request: Request) -> Response:
        return _json({"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS})

    async def live(request: Request) -> Response:
        return _json({"live": True})

    async def ready(request: Request) -> Response:
        # Ready means that Serve's controller answers. One model that does not load must not take
        # the others out of rotation, so each model's readiness is at /v2/models/<name>/ready.
        await index.all()
        return _json({"ready": True})

    async def models(request: Request) -> Response:
        return _json({"models": [state.as_json() for state in await visible.all(request.headers)]})

    handlers = {
        "/": for_browsers(server),
        "/v2": server,
        "/health": live,
        "/v2/health/live": live,
        "/ready": ready,
        "/v2/health/ready": ready,
        "/v2/models": models,
    }
    return [Route(path, handler, methods=["GET"]) for path, handler in handlers.items()]


def _openai_routes(visible: VisibleModels) -> list[Route]:
    """Return OpenAI's routes about models; KServe's first protocol has other members at the same paths."""

    async def models(request: Request) -> Response:
        states = await visible.all(request.headers)
        ready = [state for state in states if state.answers]
        return _json(
            {
                "object": "list",
                "data": [_openai_model(state) for state in ready],
                "models": [state.name for state in states],
            }
        )

    async def model(request: Request) -> Response:
        return _json(_openai_model(await visible.resolve(request.headers, request.path_params["name"])))

    return [
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name}", model, methods=["GET"]),
    ]


def _openai_model(state: ModelState) -> dict[str, Any]:
    # Nobody knows when a model was made; OpenAI's clients require the number.
    about = {"id": state.name, "object": "model", "created": 0, "owned_by": SERVER_NAME}
    return about | {"name": state.name, "ready": state.answers}


def _model_routes(visible: VisibleModels, relay: Relay) -> list[Route]:
    """Return the routes for one model, which the body or the path names."""
    # In the order of a replica's routes: a method that a path does not take is answered alike.
    return [*_query_routes(visible, relay), *_verb_routes(visible, relay)]


def _verb_routes(visible: VisibleModels, relay: Relay) -> list[Route]:
    """Return those of requests with a body, which the model answers."""

    def route_of(path: str, verb: str, media_types: MediaTypes = MEDIA_TYPES) -> Route:
        async def call(request: Request) -> Response:
            visible.check_key(request.headers)
            name = request.path_params.get("name")
            if name is not None:
                await visible.require(request.headers, name)
            body = await read_body(request, media_types)
            note_body(body)
            if name is None:
                name = _model_in(body)
                await visible.require(request.headers, name)
            async with cancel_on_disconnect(request):
                ask = relay.stream if may_stream(verb, body) else relay.send
                reply = await ask(name, verb, body, dict(request.headers))
            return response(reply)

        return Route(path, call, methods=["POST"])

    return [
        *(route_of(path, path.strip("/")) for path in ENTRANCES),
        *(route_of(f"/v2/models/{{name}}/{verb}".rstrip("/"), verb) for verb in VERBS),
        route_of("/v1/models/{name}:predict", V1_PREDICT, {JSON_TYPE: None}),
    ]


def _query_routes(visible: VisibleModels, relay: Relay) -> list[Route]:
    """Return those that ask what a model is, and whether it answers."""

    async def info(request: Request) -> Response:
        name = request.path_params["name"]
        await visible.require(request.headers, name)
        return response(await relay.send(name, INFO, b"", dict(request.headers)))

    async def model_ready(request: Request) -> Response:
        name = request.path_params["name"]
        await visible.resolve(request.headers, name)
        return _json({"name": name, "ready": True})

    async def describe(request: Request) -> Response:
        # A model that rests is not woken up for that.
        name = request.path_params["name"]
        if not (await visible.resolve(request.headers, name)).replicas:
            return await model_ready(request)
        return response(await relay.send(name, METADATA, b"", dict(request.headers)))

    return [
        Route("/v2/models/{name}", describe, methods=["GET"]),
        Route("/v2/models/{name}/info", info, methods=["GET"]),
        Route("/v2/models/{name}/ready", model_ready, methods=["GET"]),
    ]


def _model_in(body: bytes) -> str:
    """Return the `model` of a request; the model's replica checks everything else."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedBodyError(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError("the body must be a JSON object")
    name = document.get("model")
    if not isinstance(name, str) or not name:
        raise InvalidInputError(
            'model: give the name of a model, as in {"model": "sentiment", "text": "…"}', member="model"
        )
    if body.count(b'"model"') > 1:
        _require_one_name(body)
    return name


def _require_one_name(body: bytes) -> None:
    """Raise InvalidInputError if the JSON object has several `model`s: HAProxy would take the first one."""
    members: list[tuple[str, Any]] = json.loads(body, object_pairs_hook=list)
    names = [value for name, value in members if name == "model"]
    if any(name != names[0] for name in names):
        listed = " and ".join(map(quoted, names[:2]))
        raise InvalidInputError(f"model: got {listed}; name one model", member="model")


def _json(document: Any) -> Response:
    return Response(to_json(document), media_type=JSON_TYPE)


def build_gateway(args: GatewayArgs) -> Application:
    """Return the gateway application. Ray calls this with the config's `args`."""
    return Gateway.bind()  # type: ignore[attr-defined]
