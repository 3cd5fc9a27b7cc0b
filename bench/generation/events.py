"""Server-sent events, and the stream of tokens that they carry; pure."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

# What ends an event; its lines may end with any of the three.
_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DONE: Final = b"[DONE]"


class EventParser:
    """Cuts a body that comes in pieces into the data of its events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that `piece` completes; a ping has none."""
        *blocks, self._rest = _END.split(self._rest + piece)
        return [data for block in blocks if (data := _data_of(block)) is not None]


def _data_of(block: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in block.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


@dataclass(frozen=True)
class Received:
    """One answer as it came: its status, 0 if it broke off, and the data of each event with its time."""

    intended: float
    status: int
    events: Sequence[tuple[float, bytes]]


@dataclass(frozen=True)
class Stream:
    """One answer as it counts; `problem` says what was wrong with it, if anything was."""

    intended: float
    # When text came; several tokens may come in one event.
    times: Sequence[float] = ()
    tokens: int = 0
    problem: str = ""

    @property
    def gaps(self) -> list[float]:
        """Seconds between each event with text and the one before."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


class _ProblemError(Exception):
    """Something in an answer that must not be there, or is missing."""


def read(received: Received) -> Stream:
    """Return what an answer of /v1/completions or /v1/chat/completions amounts to.

    The number of tokens is that of its usage, or of its events with text if it has none.
    """
    try:
        times, counted = _contents(received)
    except _ProblemError as problem:
        return Stream(received.intended, problem=str(problem))
    return Stream(received.intended, times, len(times) if counted is None else counted)


def _contents(received: Received) -> tuple[list[float], int | None]:
    if received.status != 200:
        raise _ProblemError(f"status {received.status}" if received.status else "broken off")
    times: list[float] = []
    finished, counted = False, None
    for time, data in received.events:
        if data == _DONE:
            continue
        event = _parsed(data)
        choice = (event.get("choices") or [{}])[0]
        if _text_of(choice):
            times.append(time)
        finished = finished or bool(choice.get("finish_reason"))
        counted = (event.get("usage") or {}).get("completion_tokens", counted)
    if not times:
        raise _ProblemError("no text")
    if not finished:
        raise _ProblemError("no finish_reason")
    return times, counted


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(data)
    except ValueError:
        raise _ProblemError(f"not JSON: {data[:80]!r}") from None
    if event.get("error"):
        raise _ProblemError(f"error: {event['error']}")
    return event


def _text_of(choice: dict[str, Any]) -> str:
    return choice.get("text") or (choice.get("delta") or {}).get("content") or ""
