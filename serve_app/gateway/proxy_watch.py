"""Notice that requests come through a proxy without our rules."""

import logging
import os
from pathlib import PurePath
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.http.errors import PROXY_HEADER

_COMMAND: Final = "model-endpoints-haproxy"

logger = logging.getLogger("ray.serve")


class ProxyWatch:
    """Passes requests on to `app`; logs once that one of them has not passed the rules of `http/haproxy.py`.

    HAProxy is then not started by our command, or Ray has changed its configuration so that the rules do not
    fit. Everything is served then too, but requests wait in Ray's own proxy for models that have no replica.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._expected = _rules_are_expected()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._expected and scope["type"] == "http" and not _has_passed_rules(scope):
            self._expected = False
            logger.error(
                "HAProxy runs without the rules of %s, so requests may wait for ever for a model that has no "
                "replica; docs/internals/proxy.md says what to do",
                _COMMAND,
            )
        await self._app(scope, receive, send)


def _has_passed_rules(scope: Scope) -> bool:
    return any(name == PROXY_HEADER.encode() for name, _ in scope["headers"])


def _rules_are_expected() -> bool:
    """Return whether Ray is told to start HAProxy by our command."""
    command = PurePath(os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", ""))
    return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" and command.name == _COMMAND
