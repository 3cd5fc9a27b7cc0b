"""What the gateway answers itself: errors are counted, and all of it is told to logs and traces.

Unknown models, models that do not answer, keys that may not ask, and lists. A replica counts and tells what
the gateway relays to it, so that no request is there twice.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.engine.records import (
    Observers,
    RequestRecord,
    Transport,
    current_record,
    set_current_record,
)
from serve_app.http.entrances import ENTRANCES
from serve_app.http.errors import ClientGoneError, Reply, ServingError, UnexpectedError
from serve_app.http.request_id import REQUEST_ID, id_of
from serve_app.protocols import METADATA
from serve_app.protocols.kserve_v1 import V1_PREDICT
from serve_app.replica.hand_over import HandOver
from serve_app.replica.metrics import OTHER, RequestCounter
from serve_app.text import shortened

# Kubernetes asks these all the time.
_PROBES: Final = frozenset(
    {"/health", "/ready", "/v2/health/live", "/v2/health/ready", "ServerLive", "ServerReady"}
)

_OF_A_MODEL: Final = re.compile(r"/v2/models/[^/]*(?:/versions/[^/]*)?/")
_MODEL_ROUTE: Final = "/v2/models/{name}"
_VERSION: Final = "/versions/{version}"

RpcAnswer = Callable[[], Awaitable[Reply]]


class OwnAnswers:
    """Counts errors by the protocol of their path, status and code; Ray gets them from the first one on.

    `observers` are told of requests that no replica has answered; without any, nothing is noted.
    """

    def __init__(self, observers: Observers | None = None) -> None:
        self.counter = RequestCounter()
        self.observers = observers or Observers()
        self._hand_over: asyncio.Task[None] | None = None

    def note_error(self, path: str, error: ServingError) -> None:
        """Count one more, on the event loop. Whatever the path names, its label is one of a few."""
        self.counter.add(verb_of(path), error.status, error.code)
        if (record := current_record()) is not None:
            record.status, record.code = error.status, error.code
        if self._hand_over is None:
            # Without the context of this request, whose record would be kept as long as the task.
            self._hand_over = asyncio.create_task(HandOver([self.counter.tally]).run(), context=Context())

    def watched(self, app: ASGIApp) -> ASGIApp:
        """Return `app`, whose requests are told to the observers if there are any."""
        return _Watched(app, self._over) if self.observers.requests else app

    async def answer_rpc(
        self, method: str, request: bytes, metadata: Mapping[str, str], answer: RpcAnswer
    ) -> Reply:
        """Return what `answer` returns to a call over gRPC; raise as it does."""
        if not self.observers.requests or method in _PROBES:
            return await self._counted(method, answer)
        record = RequestRecord(id_of(metadata.get(REQUEST_ID)), method, Transport.GRPC, metadata)
        record.body = request
        set_current_record(record)
        try:
            reply = await self._counted(method, answer)
        except ServingError:
            raise
        except Exception:
            record.status, record.code = UnexpectedError.status, UnexpectedError.code
            raise
        else:
            record.reply, record.status = reply, reply.status
            return reply
        finally:
            self._over(record)

    async def _counted(self, method: str, answer: RpcAnswer) -> Reply:
        try:
            return await answer()
        except ServingError as error:
            self.note_error(method, error)
            raise

    def _over(self, record: RequestRecord) -> None:
        if record.relayed:
            return
        record.ended = time.monotonic()
        if not record.status:
            record.status, record.code = ClientGoneError.status, ClientGoneError.code
        self.observers.tell_of_request(record)


class _Watched:
    """Tells `over` of requests to `app`, without those of probes."""

    def __init__(self, app: ASGIApp, over: Callable[[RequestRecord], None]) -> None:
        self._app = app
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].rstrip("/") in _PROBES:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = shortened(scope["path"])
        record = RequestRecord(id_of(headers.get(REQUEST_ID)), path, Transport.HTTP, headers)
        record.method = scope["method"]
        set_current_record(record)
        content = bytearray()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            elif not record.relayed:
                content.extend(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            if not record.code:
                record.reply = Reply(bytes(content), "", record.status)
            self._over(record)


def noting(route: Route) -> Route:
    """Return the route, which notes in the request's record what is asked, and of which model."""
    verbs = {method: _verb(method, route.path) for method in route.methods or ()}

    async def handle(request: Request) -> Response:
        if (record := current_record()) is not None:
            record.route, record.verb = route.path, verbs[request.method]
            record.model = shortened(request.path_params.get("name", ""))
        answer: Response = await route.endpoint(request)
        return answer

    return Route(route.path, handle, methods=list(route.methods or ()))


def note_body(body: bytes) -> None:
    """Note the body of the request that this task answers."""
    if (record := current_record()) is not None:
        record.body = body


def note_relayed() -> None:
    """Note that a replica has answered the request of this task, and tells of it."""
    if (record := current_record()) is not None:
        record.relayed = True


def _verb(method: str, route: str) -> str:
    """Return what is asked at a route, as replicas name it; the route itself if no replica is asked that."""
    if route in ENTRANCES:
        return route.strip("/")
    if route.endswith(":predict"):
        return V1_PREDICT
    if not route.startswith(_MODEL_ROUTE):
        return route
    below = route.removeprefix(_MODEL_ROUTE).removeprefix(_VERSION).strip("/")
    return METADATA if method != "POST" and not below else below


def verb_of(path: str) -> str:
    """Return what is asked of a model at `path`, by its path below that of the model."""
    if path.startswith("/v1/models/") and path.endswith(":predict"):
        return V1_PREDICT
    return _OF_A_MODEL.sub("", path, count=1).strip("/") or OTHER
