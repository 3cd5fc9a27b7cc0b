"""Requests and answers as CloudEvents, as many and with as much of them as the endpoint says."""

import base64
import json

import pytest

from serve_app.contract import UserConfig
from serve_app.http.errors import JSON_TYPE, Reply
from serve_app.replica.payload_log import MAX_BODY_BYTES, PayloadLog, is_sampled
from tests.unit.recorded import ANSWER, BODY, KEY, record

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"


class Writer:
    """Keeps the lines that a LineWriter would write, and their sizes."""

    def __init__(self):
        self.made = []

    def put(self, size, make):
        self.made.append((size, make()))

    @property
    def events(self):
        return [json.loads(line) for _, line in self.made]


def log(mode, percent=100.0):
    writer, observers = Writer(), []
    log = PayloadLog(writer, observers, "sentiment", "a1b2")
    log.reconfigure(UserConfig(payload_log=mode, payload_log_percent=percent))
    return log, writer, observers


def events_of(request, mode="sampled"):
    payload_log, writer, _ = log(mode)
    payload_log(request)
    return writer.events


def test_an_event_has_the_attributes_that_cloudevents_require():
    [request, response] = events_of(record())
    for event, kind, time in [
        (request, REQUEST, "2026-11-26T12:00:00.000Z"),
        (response, RESPONSE, "2026-11-26T12:00:00.050Z"),
    ]:
        assert event["specversion"] == "1.0"
        assert event["type"] == kind
        assert event["source"] == "/v2/models/sentiment"
        assert event["subject"] == "sentiment"
        assert event["time"] == time
        assert event["datacontenttype"] == JSON_TYPE
        assert event["requestid"] == "r1"
        # Names of attributes have small letters and digits only.
        assert all(name.isalnum() and name.islower() for name in event)
    assert request["id"] != response["id"]


def test_sampled_events_have_the_bodies():
    [request, response] = events_of(record())
    assert request["data"] == {
        "verb": "predict",
        "transport": "http",
        "caller": "team-a",
        "bytes": 24,
        "body": json.loads(BODY),
    }
    assert response["data"] == {
        "status": 200,
        "code": "",
        "milliseconds": 50.0,
        "input_tokens": 4,
        "output_tokens": 0,
        "replica": "a1b2",
        "streamed": False,
        "bytes": 21,
        "content_type": JSON_TYPE,
        "body": json.loads(ANSWER),
    }


def test_metadata_has_no_texts():
    events = events_of(record(), "metadata")
    assert [event["type"] for event in events] == [REQUEST, RESPONSE]
    assert all("body" not in event["data"] for event in events)
    assert "secret" not in json.dumps(events)
    assert "POSITIVE" not in json.dumps(events)


@pytest.mark.parametrize("mode", ["metadata", "sampled"])
def test_no_header_is_in_it(mode):
    assert KEY not in json.dumps(events_of(record(), mode))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{\n  "text": "two lines"\n}', {"body": {"text": "two lines"}}),
        (b"{broken", {"body_text": "{broken"}),
        (b"\x00\xff", {"body_base64": base64.b64encode(b"\x00\xff").decode()}),
        (b'{"n": 1e999}', {"body": {"n": None}}),
        (b'"\\ud800"', {"body_text": '"\\ud800"'}),
        (b"[" * 10_000, {"body_text": "[" * 10_000}),
        (b"", {}),
    ],
)
def test_a_body_is_json_or_text_or_base64(body, expected):
    [request, _] = events_of(record(body=body))
    shown = {name: value for name, value in request["data"].items() if name.startswith("body")}
    assert shown == expected


def test_a_large_body_is_cut_and_said_to_be():
    body = b'"' + "ü".encode() * MAX_BODY_BYTES + b'"'
    payload_log, writer, _ = log("sampled")
    payload_log(record(body=body, reply=Reply(b"\xff" * (MAX_BODY_BYTES + 1), "application/octet-stream")))
    [request, response] = (event["data"] for event in writer.events)
    assert (request["bytes"], request["body_is_cut"]) == (len(body), True)
    # The last character was cut in two.
    assert request["body_text"] == '"' + "ü" * (MAX_BODY_BYTES // 2 - 1)
    assert (response["bytes"], response["body_is_cut"]) == (MAX_BODY_BYTES + 1, True)
    assert len(base64.b64decode(response["body_base64"])) == MAX_BODY_BYTES
    assert all(size < MAX_BODY_BYTES + 1000 for size, _ in writer.made)


def test_of_a_stream_the_request_is_kept_and_not_the_answer():
    [request, response] = events_of(record(streamed=True, reply=None))
    assert request["data"]["body"] == json.loads(BODY)
    assert (response["data"]["streamed"], response["data"]["bytes"]) == (True, None)
    assert "body" not in response["data"]


def test_request_and_answer_are_sampled_together_and_as_many_as_asked_for():
    payload_log, writer, _ = log("sampled", percent=20.0)
    for number in range(2000):
        payload_log(record(f"request-{number}"))
    ids = [event["requestid"] for event in writer.events]
    assert ids[::2] == ids[1::2]
    assert 300 < len(ids) / 2 < 500


@pytest.mark.parametrize(("percent", "expected"), [(0.0, 0), (100.0, 1000)])
def test_none_and_all_are_exact(percent, expected):
    assert sum(is_sampled(str(number), percent) for number in range(1000)) == expected


def test_metadata_is_of_all_requests():
    payload_log, writer, _ = log("metadata", percent=0.0)
    payload_log(record())
    assert len(writer.events) == 2


def test_the_log_is_an_observer_only_while_it_is_wanted():
    payload_log, _, observers = log("none")
    assert observers == []
    for mode in ("metadata", "sampled", "sampled"):
        payload_log.reconfigure(UserConfig(payload_log=mode))
        assert observers == [payload_log]
    payload_log.reconfigure(UserConfig())
    assert observers == []
