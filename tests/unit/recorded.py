"""Records of requests and batches as the front and the engine fill them."""

from serve_app.engine.records import BatchRecord, RequestRecord
from serve_app.http.errors import JSON_TYPE, Reply

BODY = b'{"text": "secret words"}'
ANSWER = b'{"label": "POSITIVE"}'
KEY = "sk-never-shown"

# A request of 2026-11-26, 12:00:00 UTC, which was at 100 of the monotonic clock.
ARRIVED = 100.0
BEGAN_AT = 1795694400.0


def record(request_id="r1", verb="predict", **changes):
    """Return the record of a request that was answered: 10 ms waiting, 30 ms in the model, 50 ms in all."""
    values = {
        "headers": {"authorization": f"Bearer {KEY}"},
        "caller": "team-a",
        "arrived": ARRIVED,
        "began_at": BEGAN_AT,
        "ended": ARRIVED + 0.05,
        "status": 200,
        "input_tokens": 4,
        "queued": ARRIVED + 0.002,
        "model_began": ARRIVED + 0.012,
        "model_ended": ARRIVED + 0.042,
        "batch_sequences": 2,
        "body": BODY,
        "reply": Reply(ANSWER, JSON_TYPE),
    }
    return RequestRecord(request_id, verb, **(values | changes))


def running(request_id="r1", **changes):
    """Return the record of a request that is not over."""
    return record(request_id, ended=0.0, status=0, reply=None, **changes)


def over(request):
    """End a request that was running."""
    request.ended, request.status = ARRIVED + 0.05, 200
    return request


def batch(*requests, failed=False):
    """Return the record of a batch in which these requests were, each with two sequences."""
    return BatchRecord(requests, 2 * len(requests), 16, ARRIVED + 0.012, 0.03, failed)
