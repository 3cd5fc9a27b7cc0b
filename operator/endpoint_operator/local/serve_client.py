"""Serve's REST interface at Ray's dashboard, by which Serve takes its config.

KubeRay sends the config by the same PUT request, so that both configs pass the same checks.
"""

import json
from typing import Any, Final

import httpx

from serve_app.contract import GATEWAY_APPLICATION
from serve_app.text import cause_of

APPLICATIONS_PATH: Final = "/api/serve/applications/"
# Serve answers a PUT once it has stored the config, which takes seconds while Ray starts.
REQUEST_TIMEOUT_SECONDS: Final = 60.0


class RayUnavailableError(Exception):
    """Ray cannot be started or joined, or rejects a request."""


class ServeClient:
    """Requests to the dashboard at `dashboard_url`.

    `haproxy` says whether HAProxy sends requests to the models. Ray's own proxy would let a request for a
    model without a replica wait for ever. So behind it models have no routes and the gateway gets everything.
    """

    def __init__(self, dashboard_url: str, token: str | None, *, haproxy: bool = True) -> None:
        self.url = dashboard_url
        self.token = token
        self._haproxy = haproxy
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=dashboard_url, headers=headers, timeout=REQUEST_TIMEOUT_SECONDS, trust_env=False
        )

    def put(self, document: str) -> None:
        """Replace Serve's whole config by `document`."""
        config = json.loads(document)
        for application in config["applications"]:
            if not self._haproxy and application["name"] != GATEWAY_APPLICATION:
                application["route_prefix"] = None
        self._send("PUT", config)

    def details(self) -> dict[str, Any]:
        """Return Serve's answer about all applications (`ServeInstanceDetails`)."""
        details: dict[str, Any] = self._send("GET").json()
        return details

    def http_url(self) -> str:
        """Return the URL at which the models answer; Serve must be running."""
        options = self.details()["http_options"]
        host = "localhost" if options["host"] in ("127.0.0.1", "0.0.0.0", "::") else options["host"]
        return f"http://{host}:{options['port']}"

    def delete_all(self) -> None:
        """Shut Serve down; replicas finish their requests first."""
        self._send("DELETE")

    def _send(self, method: str, content: Any = None) -> httpx.Response:
        try:
            response = self._http.request(method, APPLICATIONS_PATH, json=content)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise RayUnavailableError(f"Ray at {self.url} does not answer: {reason}") from error
        if response.is_error:
            reason = cause_of(response.text) or response.reason_phrase
            raise RayUnavailableError(f"Ray at {self.url} refused a {method}: {reason}")
        return response
