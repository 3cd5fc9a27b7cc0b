"""What is counted of requests and batches, and how Ray is handed it."""

import asyncio
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serve_app.access.folder import AccessFolder
from serve_app.access.front import Front
from serve_app.engine.continuous.figures import Finished
from serve_app.engine.records import BatchRecord, RequestRecord
from serve_app.gateway.application import gateway_application
from serve_app.http.errors import ServingError
from serve_app.protocols import CALLS, model_application
from serve_app.replica import hand_over
from serve_app.replica.hand_over import HandOver
from serve_app.replica.metrics import MOST_KEYS, ModelMetrics
from serve_app.replica.own_answers import OwnAnswers, verb_of
from serve_app.replica.tallies import Counter, Gauge, Histogram
from tests.harness.builders import run, until
from tests.unit import fake_model
from tests.unit.fake_generator import generating
from tests.unit.test_gateway_protocols import Gateway

ROOT = Path(__file__).parents[2]
# Of a start: process, fetch, import, load, prove, warm_up.
PHASES = 6


def record(status=200, code="", verb="predict", **changes):
    """Return a request that waited a second, was in the model for two, and took four."""
    made = RequestRecord("id", verb, arrived=10.0, ended=14.0, status=status, code=code)
    made.queued, made.model_began, made.model_ended = 10.5, 11.5, 13.5
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def metrics(per_key=False):
    return ModelMetrics(fake_model.service().engine, per_key=per_key)


def tallied(measured):
    """Return what each tally has, by its name without the prefix: values, or count and sum."""
    found = {}
    for tally in measured.tallies:
        name = tally.name.removeprefix("model_endpoints_")
        if isinstance(tally, Counter):
            found[name] = tally.values
        elif isinstance(tally, Histogram):
            found[name] = (tally.count, tally.sum)
        else:
            found[name] = tally.read()
    return found


def test_a_request_is_counted_by_protocol_status_and_code_with_its_times_and_tokens():
    measured = metrics()
    measured.note_request(record(input_tokens=7, output_tokens=3))
    measured.note_request(record(422, "input_too_long", "v1/embeddings", model_began=None))
    found = tallied(measured)
    assert found["requests"] == {
        ("predict", "200", ""): 1,
        ("v1/embeddings", "422", "input_too_long"): 1,
    }
    assert (found["request_seconds"], found["queue_seconds"], found["model_seconds"]) == (
        (1, 4),
        (1, 1),
        (1, 2),
    )
    assert (found["input_tokens"], found["output_tokens"]) == ({(): 7}, {(): 3})


def test_times_are_those_of_requests_that_the_model_has_answered():
    measured = metrics()
    measured.note_request(record(408, "request_timeout"))
    measured.note_request(record(verb="metadata", model_began=None))
    assert tallied(measured)["request_seconds"] == (0, 0)


def test_no_client_invents_a_label():
    measured = metrics()
    measured.note_request(record(200, "made up", "made/up"))
    measured.note_request(record(verb=""))
    assert tallied(measured)["requests"] == {
        ("other", "200", "other"): 1,
        ("inference", "200", ""): 1,
    }
    assert {"other", "inference"}.isdisjoint(CALLS)


def test_batches_are_counted_and_time_that_they_share_counts_once():
    measured = metrics()
    requests = [record()]
    measured.note_batch(BatchRecord(requests, sequences=4, tokens=60, began=1.0, seconds=2.0))
    measured.note_batch(BatchRecord(requests, sequences=2, tokens=20, began=2.0, seconds=2.0, failed=True))
    # A health check.
    measured.note_batch(BatchRecord([], sequences=1, tokens=3, began=10.0, seconds=0.5))
    found = tallied(measured)
    assert (found["batch_sequences"], found["batch_tokens"]) == ((2, 6), (2, 80))
    assert found["compute_seconds"] == {(): 3.5}
    assert found["batch_failures"] == {(): 1}


def test_keys_are_counted_only_if_asked_for_and_not_without_an_end():
    request = record(caller="team-a", input_tokens=7, output_tokens=2)
    measured = metrics()
    measured.note_request(request)
    assert "key_requests" not in tallied(measured)
    measured = metrics(per_key=True)
    measured.note_request(request)
    measured.note_request(record())
    found = tallied(measured)
    assert found["key_requests"] == {("team-a", "200"): 1}
    assert found["key_tokens"] == {("team-a", "input"): 7, ("team-a", "output"): 2}
    for number in range(MOST_KEYS + 5):
        measured.note_request(record(caller=f"key-{number}"))
    requests = tallied(measured)["key_requests"]
    assert len(requests) == MOST_KEYS + 1
    assert requests[("other", "200")] == 6


def test_the_start_and_how_the_model_is_served_are_shown():
    engine = fake_model.service().engine
    engine.model.description = {"proof": {"step": "float32, own layers", "because": ["bfloat16: …"]}}
    engine.cold_start = {"load_seconds": 1.5, "prove_seconds": 2.0, "total_seconds": 3.5}
    found = tallied(ModelMetrics(engine, per_key=False))
    assert found["model_info"] == {("text-classification", "float32, own layers", "1"): 1.0}
    assert found["start_seconds"] == {("load",): 1.5, ("prove",): 2.0}


def test_texts_that_are_generated_have_metrics_of_their_own():
    async def scenario():
        async with generating() as (engine, _):
            measured = ModelMetrics(engine, per_key=False)
            measured.note_generated(Finished(9, 4, 5, 0.5, 0.8))
            measured.note_generated(Finished(9, 0, 0, None, None))
            found = tallied(measured)
            assert found["cached_input_tokens"] == {(): 4}
            assert found["time_to_first_token_seconds"] == (1, 0.5)
            assert found["time_per_output_token_seconds"] == (1, pytest.approx(0.2))
            assert found["generation_load"] == {(): 0.0}

    run(scenario())
    assert "generation_load" not in tallied(metrics())


def test_requests_over_http_reach_the_metrics():
    async def scenario():
        async with fake_model.serving() as (engine, _):
            measured = ModelMetrics(engine, per_key=False)
            engine.observers.requests.append(measured.note_request)
            engine.observers.batches.append(measured.note_batch)
            app = model_application(engine, Front("sentiment", AccessFolder(None), engine.observers))
            with TestClient(app) as client:
                for body in ({"text": "one two three"}, {"text": 5}):
                    client.post("/predict", json=body)
            return tallied(measured)

    found = run(scenario())
    assert found["requests"] == {("predict", "200", ""): 1, ("predict", "422", "invalid_input"): 1}
    assert found["input_tokens"] == {(): 3}
    assert found["batch_tokens"] == (1, 3)
    assert found["request_seconds"][0] == 1


@pytest.mark.parametrize(
    ("path", "verb"),
    [
        ("/v2/models/some-name/predict", "predict"),
        ("/v2/models/some-name/versions/1/infer", "infer"),
        ("/v1/models/some-name:predict", "v1:predict"),
        ("/v1/chat/completions", "v1/chat/completions"),
        ("ModelInfer", "ModelInfer"),
        ("/", "other"),
    ],
)
def test_the_protocol_of_a_refusal_is_that_of_its_path(path, verb):
    assert verb_of(path) == verb


def test_the_gateway_counts_what_it_refuses_itself_without_the_names_that_clients_invent(monkeypatch):
    monkeypatch.setattr(hand_over, "metrics", FakeRay())
    gateway, own = Gateway(), OwnAnswers()
    app = gateway_application(gateway.index, gateway.relay, own=own)
    with TestClient(app) as client:
        assert client.post("/predict", json={"model": "a", "text": "x"}).status_code == 200
        client.post("/predict", json={"model": "nobody", "text": "x"})
        client.post("/v2/models/nobody/infer", json={})
        client.post("/v2/models/b/predict", json={"text": "x"})
        client.get("/nothing/here")
    assert own.counter.tally.values == {
        ("predict", "404", "unknown_model"): 1,
        ("infer", "404", "unknown_model"): 1,
        ("predict", "503", "model_not_ready"): 1,
        ("other", "404", "unknown_path"): 1,
    }


class FakeRay:
    """Imitates ray.serve.metrics: it keeps what it is handed, and refuses what Ray refuses."""

    def __init__(self):
        self.counted, self.shown = {}, {}

    def Counter(self, name, text, labels):
        return FakeMetric(name, labels, self)

    def Gauge(self, name, text, labels=()):
        return FakeMetric(name, labels, self)


class FakeMetric:
    def __init__(self, name, labels, ray):
        self.name, self.labels, self.ray = name, labels, ray

    def key(self, tags):
        assert tuple(tags or ()) == self.labels
        return (self.name, *(tags or {}).values())

    def inc(self, value, tags):
        assert value > 0
        self.ray.counted[self.key(tags)] = self.ray.counted.get(self.key(tags), 0) + value

    def set(self, value, tags=None):
        self.ray.shown[self.key(tags)] = value


def test_ray_is_handed_what_was_added_and_all_that_it_forgets(monkeypatch):
    ray = FakeRay()
    monkeypatch.setattr(hand_over, "metrics", ray)
    requests, seconds = Counter("requests", "", "status"), Histogram("seconds", "", (1, 5))
    load = Gauge("load", "", read=lambda: {(): 0.5})
    handed = HandOver([requests, seconds, load])
    requests.add(2, "200")
    seconds.observe(3)
    for _ in range(2):
        handed.once()
    assert ray.counted == {("requests", "200"): 2}
    requests.add(1, "200")
    ray.shown.clear()
    handed.once()
    assert ray.counted == {("requests", "200"): 3}
    assert ray.shown == {
        ("seconds_bucket", "1.0"): 0,
        ("seconds_bucket", "5.0"): 1,
        ("seconds_bucket", "+Inf"): 1,
        ("seconds_sum",): 3,
        ("seconds_count",): 1,
        ("load",): 0.5,
    }


def test_a_failure_is_logged_and_the_next_time_comes(monkeypatch, caplog):
    ray, failures = FakeRay(), [RuntimeError("once")]
    monkeypatch.setattr(hand_over, "metrics", ray)
    monkeypatch.setattr(hand_over, "SECONDS", 0)

    def read():
        if failures:
            raise failures.pop()
        return {(): 1.0}

    async def scenario():
        task = asyncio.create_task(HandOver([Gauge("load", "", read=read)]).run())
        await until(lambda: ray.shown)
        task.cancel()

    run(scenario())
    assert ray.shown == {("load",): 1.0}
    assert "metrics were not handed to Ray" in caplog.text


def shown_names(tally):
    """Return the names under which Prometheus has a tally."""
    name = f"ray_{tally.name}"
    if isinstance(tally, Counter):
        return [f"{name}_total"]
    return (
        [f"{name}_{part}" for part in ("bucket", "sum", "count")] if isinstance(tally, Histogram) else [name]
    )


@pytest.fixture(scope="module")
def everything():
    """The tallies of a model that generates, with those of keys."""

    async def scenario():
        async with generating() as (engine, _):
            return ModelMetrics(engine, per_key=True).tallies

    return run(scenario())


def test_the_tables_of_metrics_are_those_of_the_code(everything):
    rows = re.findall(
        r"^\| `ray_(\w+)` \| (\w+).*? \| (.*?) \|", (ROOT / "docs" / "metrics.md").read_text(), re.M
    )
    documented = {
        name.removesuffix("_total"): (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows
    }
    assert documented == {
        tally.name: (type(tally).__name__.lower(), [] if isinstance(tally, Histogram) else list(tally.labels))
        for tally in everything
    }


def test_alerts_and_dashboard_use_metrics_that_exist(everything):
    chart = ROOT / "charts" / "model-endpoints"
    used = {
        name
        for file in ("templates/prometheusrule.yaml", "files/dashboard.json")
        for name in re.findall(r"ray_model_endpoints_\w+", (chart / file).read_text(encoding="utf-8"))
    }
    assert len(used) > 10
    assert used <= {name for tally in everything for name in shown_names(tally)}


def test_what_200_endpoints_can_make_at_most_is_documented(everything, record_property):
    """Each label with all of its values: nobody makes them all, and nobody can make more."""
    protocols, pairs = len(CALLS) + 1, len(status_and_codes()) + 1
    most = 0
    for tally in everything:
        if isinstance(tally, Histogram):
            most += len(list(tally.buckets())) + 2
        elif tally.name.endswith("_requests") and "key" not in tally.labels:
            most += protocols * pairs
        elif "key" not in tally.labels:
            most += PHASES if "phase" in tally.labels else 1
    record_property("series of a replica at most", most)
    text = " ".join((ROOT / "docs" / "metrics.md").read_text().split())
    assert f"{most:,} of a replica at most" in text
    assert f"{200 * most:,} with 200 endpoints" in text


def status_and_codes(error=ServingError):
    """Return the status and the code of each kind of error, those of other tests left out."""
    kinds = [kind for kind in error.__subclasses__() if kind.__module__.startswith("serve_app.")]
    return {(error.status, error.code)}.union(*map(status_and_codes, kinds))
