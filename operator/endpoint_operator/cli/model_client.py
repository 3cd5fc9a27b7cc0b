"""Requests of the commands to a model service; whatever goes wrong ends the command with one sentence."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Annotated, Any, Final

import httpx
import typer
from pydantic_core import from_json

from endpoint_operator.cli.inputs import fail
from serve_app.contract import route_prefix

# Text generation on a CPU takes minutes.
TIMEOUT_SECONDS: Final = 300.0

Url = Annotated[str, typer.Option(help="Address of the service.")]
DEFAULT_URL: Final = "http://localhost:8000"
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="A parameter of the task, or a JSON object of several; may be repeated."
    ),
]


# An option would show the key to everybody who lists processes.
KEY_VARIABLE: Final = "MODEL_ENDPOINTS_KEY"


def key_headers() -> dict[str, str]:
    """Return the header with the key of the environment; none without a key."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    return {"authorization": f"Bearer {key}"} if key else {}


class ModelClient:
    """The service at `url`, asked about the model `name`."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self.predict_address = url.rstrip("/") + route_prefix(name) + "/predict"

    def predict(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request; with `texts` in it, the answer has a list of `predictions`."""
        answer = self._send("POST", self.predict_address, body)
        if "texts" in body and not isinstance(answer.get("predictions"), list):
            raise another_program(self.url, answer)
        return answer

    def inputs(self) -> list[str]:
        """Return the names of the model's inputs; none if no replica runs that could tell."""
        return [tensor["name"] for tensor in self._metadata().get("inputs", [])]

    def task(self) -> str:
        """Return the model's task, also of one at rest; empty if the service does not tell it."""
        stated = self._metadata().get("parameters", {}).get("task")
        if stated:
            return str(stated)
        models = self._send("GET", self.url.rstrip("/") + "/v2/models").get("models", [])
        return next((str(model.get("task", "")) for model in models if model.get("name") == self.name), "")

    def _metadata(self) -> dict[str, Any]:
        return self._send("GET", self.url.rstrip("/") + route_prefix(self.name))

    def _send(self, method: str, address: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return ask(self.url, method, address, body)


def ask(
    url: str,
    method: str,
    address: str,
    body: Mapping[str, Any] | None = None,
    sentences: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """Return the JSON object that the service at `url` answers at `address`; end the command without one.

    `sentences` are what is said of some statuses in place of the service's own words.
    """
    try:
        response = httpx.request(
            method,
            address,
            json=body,
            headers=key_headers(),
            timeout=TIMEOUT_SECONDS,
            trust_env=not _is_this_machine(address),
        )
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:
        # The last two are about a proxy that the environment names and httpx cannot use.
        raise fail(f"{url} does not answer: {error}") from error
    answer = _object(response)
    if response.is_error:
        said = answer.get("error") if answer else None
        sentence = (sentences or {}).get(response.status_code)
        raise fail(sentence or f"{response.status_code}: {said or response.text[:400]}")
    if answer is None:
        raise another_program(url, response.text)
    return answer


def another_program(url: str, answered: Any) -> typer.Exit:
    """Say that what answers at `url` is something else; return the exception that ends the command."""
    text = answered if isinstance(answered, str) else json.dumps(answered)
    return fail(f"{url} is no model service: it answered {text[:80]!r}")


def _is_this_machine(address: str) -> bool:
    """Return whether a proxy that the environment names must not be asked for `address`."""
    host = httpx.URL(address).host
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def task_parameters(options: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of `--parameters`: JSON objects, and KEY=VALUE.

    A value is what it is as JSON, or else text. A key that comes again makes a list.
    """
    given: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if equals and key.isidentifier():
            value = _value(text)
            given[key] = [*_listed(given[key]), value] if key in given else value
        else:
            given |= _json_object(option)
    return given


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _value(text: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text


def _json_object(text: str) -> dict[str, Any]:
    try:
        decoded = from_json(text, allow_inf_nan=False)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise fail(f"--parameters: got {text!r}; must be KEY=VALUE or a JSON object")
    return decoded
