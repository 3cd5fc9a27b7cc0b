"""KServe's V1 protocol at the gateway, for requests whose model has no replica that HAProxy knows."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.gateway.relay import Relay
from serve_app.http.app import response
from serve_app.http.body import read_body
from serve_app.http.disconnect import cancel_on_disconnect
from serve_app.http.errors import JSON_TYPE
from serve_app.protocols.kserve_v1 import V1_PREDICT


def v1_routes(relay: Relay) -> list[Route]:
    async def predict(request: Request) -> Response:
        body = await read_body(request, {JSON_TYPE: None})
        async with cancel_on_disconnect(request):
            reply = await relay.send(request.path_params["name"], V1_PREDICT, body, {})
        return response(reply)

    return [Route("/v1/models/{name}:predict", predict, methods=["POST"])]
