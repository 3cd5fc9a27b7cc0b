"""Record every version of the endpoints and of the RayService that the API server stores, in its order."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx

from endpoint_operator.api.types import GROUP, KIND, PLURAL, VERSION

# A watch ends so often by itself, which is when a recorder sees that it is to end.
_WATCH_SECONDS: Final = 1
_CATCH_UP_SECONDS: Final = 20


@dataclass(frozen=True)
class Change:
    """One version of an object; versions count up over all objects."""

    version: int
    kind: str
    deleted: bool
    object: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the object."""
        return str(self.object["metadata"]["name"])

    @property
    def is_endpoint(self) -> bool:
        """Whether it is a ModelEndpoint; else it is a RayService."""
        return self.kind == KIND


class History:
    """Watches one namespace until it is ended."""

    def __init__(self, http: httpx.Client, namespace: str) -> None:
        self._http = http
        self._paths = {
            KIND: f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}",
            "RayService": f"/apis/ray.io/v1/namespaces/{namespace}/rayservices",
        }
        self._changes: list[Change] = []
        self._lock = threading.Lock()
        self._versions: dict[str, int] = {}
        self._ended = threading.Event()
        self._failure: Exception | None = None

    def begin(self) -> None:
        """Take what there is and record from there on."""
        for kind, path in self._paths.items():
            listed = self._http.get(path).raise_for_status().json()
            for item in listed["items"]:
                self._add(kind, item, deleted=False)
            self._versions[kind] = int(listed["metadata"]["resourceVersion"])
            threading.Thread(target=self._watch, args=(kind, path), daemon=True).start()

    def end(self) -> None:
        """Stop to record."""
        self._ended.set()

    def changes(self) -> list[Change]:
        """Return what was stored until now, in order; waits until all of it has come."""
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        wanted = {kind: self._newest(path, deadline) for kind, path in self._paths.items()}
        while any(self._versions[kind] < version for kind, version in wanted.items()):
            if self._failure:
                raise self._failure
            assert time.monotonic() < deadline, "the recorder does not catch up"
            time.sleep(0.01)
        with self._lock:
            return sorted(self._changes, key=lambda change: change.version)

    def _newest(self, path: str, deadline: float) -> int:
        # For a moment after a change of the CRD the API server asks for patience.
        while (answer := self._http.get(path)).status_code == 429 and time.monotonic() < deadline:
            time.sleep(0.2)
        items = answer.raise_for_status().json()["items"]
        return max((int(item["metadata"]["resourceVersion"]) for item in items), default=0)

    def _watch(self, kind: str, path: str) -> None:
        while not self._ended.is_set():
            try:
                self._follow(kind, path)
            except httpx.HTTPError:
                # An API server that a test has stopped; etcd keeps what is missed.
                time.sleep(0.05)
            except Exception as error:
                self._failure = error
                raise

    def _follow(self, kind: str, path: str) -> None:
        query = {
            "watch": "true",
            "resourceVersion": str(self._versions[kind]),
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        with self._http.stream("GET", path, params=query, timeout=10) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    self._list_again(kind, path)
                    return
                self._add(kind, event["object"], deleted=event["type"] == "DELETED")

    def _list_again(self, kind: str, path: str) -> None:
        """Take up the thread where an API server that was away can: it only remembers its own time."""
        listed = self._http.get(path).raise_for_status().json()
        version = int(listed["metadata"]["resourceVersion"])
        there = {item["metadata"]["uid"] for item in listed["items"]}
        with self._lock:
            latest = {c.object["metadata"]["uid"]: c for c in self._changes if c.kind == kind}
            gone = [c for uid, c in latest.items() if uid not in there and not c.deleted]
            self._changes += [replace(change, version=version, deleted=True) for change in gone]
        for item in listed["items"]:
            if int(item["metadata"]["resourceVersion"]) > self._versions[kind]:
                self._add(kind, item, deleted=False)
        self._versions[kind] = version

    def _add(self, kind: str, stored: dict[str, Any], deleted: bool) -> None:
        version = int(stored["metadata"]["resourceVersion"])
        with self._lock:
            self._changes.append(Change(version, kind, deleted, stored))
        self._versions[kind] = max(self._versions.get(kind, 0), version)


@contextmanager
def recorded(http: httpx.Client, namespace: str) -> Iterator[History]:
    """Record until the end of the block."""
    history = History(http, namespace)
    history.begin()
    try:
        yield history
    finally:
        history.end()
