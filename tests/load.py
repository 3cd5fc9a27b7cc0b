"""Clients in threads that send the same request over and over, and count what comes back."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

# Longer than `limits.requestTimeoutSeconds` of any endpoint that is asked, so that the server gives up first.
PATIENCE_SECONDS = 240


def _now() -> str:
    return time.strftime("%H:%M:%S")


class Load:
    """What the clients of one address have seen."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []
        self.without_retry_after = 0
        self.slowest = 0.0
        # When its answer came, to be found in the logs of the cluster, like the time of each failure.
        self.slowest_at = ""

    def count(self, response: httpx.Response, seconds: float) -> None:
        self.statuses[response.status_code] += 1
        if seconds > self.slowest:
            self.slowest, self.slowest_at = seconds, _now()
        if response.status_code == 429:
            self.without_retry_after += "retry-after" not in response.headers
        elif response.status_code != 200:
            self.fail(f"{response.status_code} {response.text[:200]}")

    def fail(self, cause: str) -> None:
        self.failures.append(f"{_now()} {cause}")


def _send_until(
    stop: threading.Event, url: str, body: Mapping[str, Any], load: Load, pause: float, *, connect: bool
) -> None:
    limits = httpx.Limits(max_keepalive_connections=0 if connect else None)
    with httpx.Client(timeout=PATIENCE_SECONDS, limits=limits) as client:
        while not stop.wait(pause):
            started = time.monotonic()
            try:
                load.count(client.post(url, json=body), time.monotonic() - started)
            except httpx.HTTPError as error:
                load.fail(repr(error))


@contextmanager
def load_on(
    url: str, body: Mapping[str, Any], clients: int = 2, pause: float = 0.02, connecting: int = 0
) -> Iterator[Load]:
    """Send `body` to `url` from several clients, closed loop, until the end of the block.

    `connecting` of the clients open a connection for each request, the others keep one. The pause after each
    answer leaves models that load meanwhile some of a small machine's processor.
    """
    stop, load = threading.Event(), Load()
    threads = [
        threading.Thread(
            target=_send_until,
            args=(stop, url, body, load, pause),
            kwargs={"connect": client < connecting},
            daemon=True,
        )
        for client in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS + 10)
