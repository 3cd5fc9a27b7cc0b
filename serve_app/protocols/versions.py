"""Paths of the Open Inference Protocol that name a version of the model; there is one."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.protocols.open_inference_tensors import check_version

Handler = Callable[[Request], Awaitable[Response]]

# What the protocol has below a version, by its method.
_WITH_VERSION: Final = {
    "": "GET",
    "ready": "GET",
    "infer": "POST",
    "generate": "POST",
    "generate_stream": "POST",
}


def version_routes(routes: Sequence[Route], base: str = "", name: str = "") -> Iterator[Route]:
    """Yield those of `routes` that may name a version, with `/versions/<version>` after `base`.

    The model is the path's parameter `name`, or else `name`. Another version is answered 404.
    """
    for route in routes:
        if not route.path.startswith(base):
            continue
        below = route.path.removeprefix(base).strip("/")
        method = _WITH_VERSION.get(below)
        if method is not None and method in (route.methods or ()):
            path = f"{base}/versions/{{version}}/{below}".rstrip("/")
            yield Route(path, _checked(route.endpoint, name), methods=[method])


def _checked(handler: Handler, name: str) -> Handler:
    async def handle(request: Request) -> Response:
        check_version(request.path_params.get("name", name), request.path_params["version"])
        return await handler(request)

    return handle
