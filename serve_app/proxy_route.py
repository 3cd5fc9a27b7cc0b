"""The short way from the gateway to a model: HTTP through the proxy of the gateway's own node.

A call through Ray's handle takes milliseconds more (docs/performance.md), but knows of a replica before the
proxy does, and waits for one: it remains for what finds none here.
"""

from collections.abc import Mapping
from typing import Final

import aiohttp

from serve_app.contract import route_prefix
from serve_app.errors import ModelNotReadyError, OverloadedError
from serve_app.reply import JSON_TYPE, Reply

# Serve writes this one to the logs of the model.
_TAKEN_ALONG: Final = ("x-request-id",)
_BROUGHT_BACK: Final = ("retry-after",)

# The model has a time limit of its own.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=1)


class ProxyRoute:
    """Keeps connections to the proxy at `base_url`."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._session: aiohttp.ClientSession | None = None

    async def predict(self, name: str, body: bytes, headers: Mapping[str, str]) -> Reply | None:
        """Return what the model `name` answers to a request, None if the proxy cannot place it.

        Raises OverloadedError, and ModelNotReadyError if the replica died with the request.
        """
        if self._session is None:
            # The number of requests at a time is limited where they are accepted.
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(self._base_url, connector=connector, timeout=_TIMEOUT)
        sent = {"content-type": JSON_TYPE} | _some(headers, _TAKEN_ALONG)
        try:
            async with self._session.post(f"{route_prefix(name)}/predict", data=body, headers=sent) as answer:
                return _reply(name, answer, await answer.read())
        except aiohttp.ClientConnectionError:
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def _reply(name: str, answer: aiohttp.ClientResponse, body: bytes) -> Reply | None:
    """Tell the answers of a model, which are JSON, from those of the proxy and of Serve, which are text."""
    if answer.content_type == JSON_TYPE:
        return Reply(body, JSON_TYPE, answer.status, _some(answer.headers, _BROUGHT_BACK))
    if answer.status == OverloadedError.status:
        raise OverloadedError(f"{name} has too many requests waiting")
    if answer.status == ModelNotReadyError.status:
        return None
    raise ModelNotReadyError(f"{name} lost this request; send it again")


def _some(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}
