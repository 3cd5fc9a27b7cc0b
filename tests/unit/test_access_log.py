"""One JSON line for each request, in which nothing is that a client would not want there."""

import json

import pytest

from serve_app.http.errors import Reply
from serve_app.replica.access_log import AccessLog
from serve_app.replica.request_spans import trace_of_client
from tests.unit.recorded import ARRIVED, KEY, record

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Writer:
    """Keeps the lines that a LineWriter would write."""

    def __init__(self):
        self.made = []

    def put(self, size, make):
        line = make()
        assert len(line) < size * 2
        self.made.append(line)


def line_of(request, trace_id=trace_of_client, *, model="sentiment", replica="a1b2"):
    writer = Writer()
    AccessLog(writer, model, replica, trace_id)(request)
    [line] = writer.made
    assert b"\n" not in line
    return json.loads(line)


def test_a_line_says_who_asked_what_and_how_long_each_part_took():
    assert line_of(record()) == {
        "log": "access",
        "time": "2026-11-26T12:00:00.000Z",
        "request_id": "r1",
        "model": "sentiment",
        "replica": "a1b2",
        "caller": "team-a",
        "verb": "predict",
        "transport": "http",
        "status": 200,
        "code": "",
        "milliseconds": 50.0,
        "queue_milliseconds": 10.0,
        "model_milliseconds": 30.0,
        "input_tokens": 4,
        "output_tokens": 0,
        "batch_sequences": 2,
        "request_bytes": 24,
        "response_bytes": 21,
        "streamed": False,
    }


def test_neither_texts_nor_keys_are_in_it():
    line = json.dumps(line_of(record(reply=Reply(b"secret answer", "text/plain"))))
    assert "secret" not in line
    assert KEY not in line


def test_a_refused_request_has_its_error_and_no_times_of_the_model():
    line = line_of(
        record(status=401, code="unauthorized", reply=None, queued=None, model_began=None, model_ended=None)
    )
    assert (line["status"], line["code"], line["response_bytes"]) == (401, "unauthorized", None)
    assert (line["queue_milliseconds"], line["model_milliseconds"]) == (0, 0)


def test_a_stream_has_the_time_of_its_first_part():
    line = line_of(record(streamed=True, reply=None, first_output=ARRIVED + 0.02))
    assert line["first_output_milliseconds"] == 20.0
    assert line["response_bytes"] is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        ("secret", None),
    ],
)
def test_the_trace_is_that_of_the_client_if_it_names_one(header, expected):
    assert line_of(record(headers={"traceparent": header})).get("trace_id") == expected
