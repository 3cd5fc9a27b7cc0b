"""The page for people: three files of this package, which the gateway serves to browsers.

They are served as they are. What the page shows, its script asks of `/v2/models` and `/openapi.json`.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.http.errors import JSON_TYPE, UnknownPathError

Handler = Callable[[Request], Awaitable[Response]]

HTML_TYPE: Final = "text/html"

_FOLDER: Final = Path(__file__).parent / "page"
_TYPES: Final[Mapping[str, str]] = {
    "index.html": HTML_TYPE,
    "page.css": "text/css",
    "page.js": "text/javascript",
    "answers.js": "text/javascript",
    "forms.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
# Nothing from elsewhere is loaded or asked, and nothing inside the documents is run: an answer that holds
# markup stays text even if the script had a mistake.
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A new version of the server has a new page.
    "Cache-Control": "no-cache",
}


def for_browsers(handler: Handler) -> Handler:
    """Return a handler that answers browsers with the page and everybody else as `handler` does."""

    async def page_or_answer(request: Request) -> Response:
        answer = _file("index.html") if prefers_html(request.headers) else await handler(request)
        answer.headers["Vary"] = "Accept"
        return answer

    return page_or_answer


def page_route() -> Route:
    """Return the route of the page's files. Raises UnknownPathError for other names."""

    async def file(request: Request) -> Response:
        name = request.path_params["file"]
        if name not in _TYPES:
            raise UnknownPathError(f"the page has no file {name!r}; it has {', '.join(_TYPES)}")
        return _file(name)

    return Route("/page/{file}", file, methods=["GET"])


def prefers_html(headers: Mapping[str, str]) -> bool:
    """Return whether `Accept` names HTML, with more weight than it gives JSON (RFC 9110, section 12.5.1)."""
    weights = dict(map(_weighted, headers.get("accept", "*/*").split(",")))
    html = weights.get(HTML_TYPE, 0.0)
    json = next((weights[kind] for kind in (JSON_TYPE, "application/*", "*/*") if kind in weights), 0.0)
    return html > json


def _weighted(media_range: str) -> tuple[str, float]:
    """Return a media type and its weight, which is 1 if none is stated and 0 if it is no number."""
    kind, *parameters = (part.strip().lower() for part in media_range.split(";"))
    stated = [text.partition("=")[2] for text in parameters if text.startswith("q=")]
    try:
        return kind, float(stated[0]) if stated else 1.0
    except ValueError:
        return kind, 0.0


def _file(name: str) -> Response:
    return Response(_content(name), headers=dict(_HEADERS), media_type=_TYPES[name])


@cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
