"""The payload log: what was asked and answered, as CloudEvents 1.0 in JSON, two for each request.

The types of the events are those of KServe's logger. `spec.logging` of the endpoint says whether there are
events at all (`none`), of all requests and without texts (`metadata`), or of a part of the requests and with
their bodies (`sampled`). What is streamed is not kept: the answer's event then has no body.
"""

from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any, Final
from uuid import uuid4

from pydantic_core import from_json, to_json

from serve_app.contract import UserConfig
from serve_app.engine.records import RequestRecord
from serve_app.http.errors import JSON_TYPE
from serve_app.replica.access_log import milliseconds, timestamp
from serve_app.telemetry.line_writer import LineWriter

REQUEST_TYPE: Final = "org.kubeflow.serving.inference.request"
RESPONSE_TYPE: Final = "org.kubeflow.serving.inference.response"

# Of each body, the log has at most so many bytes.
MAX_BODY_BYTES: Final = 64 * 2**10
# What an event without its body takes of the writer's bytes.
_EVENT_BYTES: Final = 640

_HASH_BYTES: Final = 8
_HASHES: Final = float(2**64)

Observers = list[Callable[[RequestRecord], None]]


class PayloadLog:
    """Observer of requests that are over; it is among `observers` only while the endpoint wants a log."""

    def __init__(self, writer: LineWriter, observers: Observers, model: str, replica: str) -> None:
        self._writer = writer
        self._observers = observers
        self._source = f"/v2/models/{model}"
        self._model = model
        self._replica = replica
        self._percent = 0.0
        self._has_bodies = False

    def reconfigure(self, user_config: UserConfig) -> None:
        """Apply the endpoint's settings to requests that end from now on."""
        mode = user_config.payload_log
        self._has_bodies = mode == "sampled"
        self._percent = user_config.payload_log_percent if self._has_bodies else 100.0
        wanted, present = mode != "none", self in self._observers
        if wanted and not present:
            self._observers.append(self)
        elif present and not wanted:
            self._observers.remove(self)

    def __call__(self, record: RequestRecord) -> None:
        # Whoever is refused does not fill the log.
        if record.is_refused or not is_sampled(record.id, self._percent):
            return
        reply = record.reply
        ended_at = record.began_at + record.ended - record.arrived
        body, answer = (record.body, b"" if reply is None else reply.body) if self._has_bodies else (b"", b"")
        self._put(REQUEST_TYPE, record, record.began_at, body, self._request(record))
        self._put(RESPONSE_TYPE, record, ended_at, answer, self._response(record))

    def _request(self, record: RequestRecord) -> dict[str, Any]:
        return {
            "verb": record.verb,
            "transport": record.transport,
            "caller": record.caller,
            "bytes": len(record.body),
        }

    def _response(self, record: RequestRecord) -> dict[str, Any]:
        reply = record.reply
        return {
            "status": record.status,
            "code": record.code,
            "milliseconds": milliseconds(record.ended - record.arrived),
            "input_tokens": record.input_tokens,
            "output_tokens": record.output_tokens,
            "replica": self._replica,
            "streamed": record.streamed,
            "bytes": None if reply is None else len(reply.body),
            "content_type": "" if reply is None else reply.content_type,
        }

    def _put(self, kind: str, record: RequestRecord, at: float, body: bytes, data: dict[str, Any]) -> None:
        event = {
            "specversion": "1.0",
            "id": uuid4().hex,
            "source": self._source,
            "type": kind,
            "subject": self._model,
            "time": timestamp(at),
            "datacontenttype": JSON_TYPE,
            # An extension, by which the two events of a request are found.
            "requestid": record.id,
            "data": data,
        }
        # A part of a large body is copied, so that the queue does not keep the whole one.
        kept = body[:MAX_BODY_BYTES]
        self._writer.put(_EVENT_BYTES + len(kept), partial(_line, event, kept, len(body)))


def is_sampled(request_id: str, percent: float) -> bool:
    """Return whether a request is among the `percent` of all that are logged, by a hash of its identifier."""
    if percent >= 100:
        return True
    number = int.from_bytes(blake2b(request_id.encode(), digest_size=_HASH_BYTES).digest())
    return number < percent / 100 * _HASHES


def _line(event: dict[str, Any], body: bytes, size: int) -> bytes:
    """Return the event in JSON, with the beginning of a body of `size` bytes."""
    if body:
        event["data"] |= _body_members(body, is_whole=len(body) == size)
    # JSON has no infinity, which Python makes of large numbers.
    return to_json(event, inf_nan_mode="null")


def _body_members(body: bytes, *, is_whole: bool) -> dict[str, Any]:
    """Return `body` as JSON if it is whole and is JSON, else as text if it is UTF-8, else in Base64."""
    if is_whole:
        try:
            return {"body": from_json(body, allow_inf_nan=False)}
        except ValueError:
            is_cut = {}
    else:
        is_cut = {"body_is_cut": True}
    try:
        # A cut may have left a part of the last character.
        text = getincrementaldecoder("utf-8")().decode(body, final=is_whole)
    except UnicodeDecodeError:
        return {**is_cut, "body_base64": b64encode(body).decode()}
    return {**is_cut, "body_text": text}
