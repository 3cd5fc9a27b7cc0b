"""Triton's model repository extension: the list of models, which resources change and requests do not.

Specification: `extension_model_repository.md` of https://github.com/triton-inference-server/server, in
`docs/protocol`.
"""

from typing import Any, Final

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.contract import StrictModel
from serve_app.gateway.model_index import ModelState
from serve_app.gateway.visible_models import VisibleModels
from serve_app.http.body import read_body
from serve_app.http.errors import JSON_TYPE, FixedRepositoryError, MalformedBodyError
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.open_inference_tensors import VERSION
from serve_app.replica.own_answers import note_body

# Triton's words for the states of Serve's applications without a replica; others are UNAVAILABLE.
_STATES: Final = {"NOT_STARTED": "LOADING", "DEPLOYING": "LOADING", "DELETING": "UNLOADING"}


class IndexRequest(StrictModel):
    """The body, which may be empty; `ready` asks only for models that answer."""

    ready: bool | None = None


def repository_routes(visible: VisibleModels) -> list[Route]:
    """Return the routes of the extension."""

    async def list_models(request: Request) -> Response:
        states = await visible.all(request.headers)
        ready_only = await _ready_only(request)
        listed = [_as_listed(state) for state in states if state.answers or not ready_only]
        return Response(to_json(listed), media_type=JSON_TYPE)

    async def refuse(request: Request) -> Response:
        raise FixedRepositoryError(
            f"{request.url.path}: requests neither load nor unload models; apply or delete a ModelEndpoint, "
            "or set its spec.suspend"
        )

    return [
        Route("/v2/repository/index", list_models, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", refuse, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", refuse, methods=["POST"]),
    ]


async def _ready_only(request: Request) -> bool:
    try:
        body = await read_body(request, {JSON_TYPE: None})
        note_body(body)
    except MalformedBodyError:
        body = b""
    if not body:
        return False
    return bool(parse_body(IndexRequest, body).ready)


def _as_listed(state: ModelState) -> dict[str, Any]:
    word = "READY" if state.answers else _STATES.get(state.status, "UNAVAILABLE")
    return {"name": state.name, "version": VERSION, "state": word, "reason": state.reason}
