"""Exceptions for requests to the Kubernetes API that failed, each with a sentence for people."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import aiohttp
from kubernetes.aio import client


class KubeError(Exception):
    """A request failed; `retry_after` is how many seconds the API server asks to be left alone."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFoundError(KubeError):
    """The object, or its kind, does not exist."""


class ConflictError(KubeError):
    """The object has changed since it was read, or is another one of the same name."""


class InvalidError(KubeError):
    """The API server rejects this request, so that sending it again at once is of no use."""


_BY_STATUS: Final[Mapping[int, type[KubeError]]] = {
    400: InvalidError,
    403: InvalidError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidError,
    422: InvalidError,
}


@contextmanager
def api_errors(action: str) -> Iterator[None]:
    """Raise what the client raises as a KubeError that says `action` could not be done."""
    try:
        yield
    except client.ApiException as error:
        kind = _BY_STATUS.get(error.status or 0, KubeError)
        raise kind(f"cannot {action}: {_answer(error)}", _retry_after(error)) from error
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        cause = str(error) or "no answer in time"
        raise KubeError(f"cannot {action}: the cluster cannot be reached: {cause}") from error


def _answer(error: client.ApiException) -> str:
    body = (error.body or "").strip()
    if error.status == 404 and not body.startswith("{"):
        # Only a kind that is not there is answered without a Status object.
        return "the cluster does not know this kind; its custom resource definition is not installed"
    try:
        # The message of a Status object names the account and the missing right.
        message = json.loads(body)["message"]
    except (ValueError, TypeError, KeyError):
        message = f"{error.reason} {body[:200]}".strip()
    return f"{error.status}: {message}"


def _retry_after(error: client.ApiException) -> float:
    try:
        return float((error.headers or {}).get("Retry-After", 0))
    except ValueError:
        # The header may also be a date; the caller's usual pause will do.
        return 0.0
