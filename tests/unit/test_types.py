from datetime import UTC, datetime

import pytest
from hypothesis import given
from pydantic import ValidationError

from endpoint_operator.api.types import ModelEndpoint, parse_endpoint
from endpoint_operator.api.validation import describe
from serve_app.contract import Task
from tests.harness.builders import endpoint, manifest, with_value
from tests.unit import strategies

DEFAULTS = {
    "model": {
        "uri": "file:///models/sentiment",
        "revision": "",
        "tokenSecret": "",
        "task": "text-classification",
        "dtype": "auto",
        "parameters": {},
    },
    "resources": {"profile": "cpu", "count": 1, "cpus": 1, "memory": "2Gi"},
    "scaling": {
        "minReplicas": 1,
        "maxReplicas": 1,
        "maxReplicasPerNode": 0,
        "targetOngoingRequests": 8,
        "upscaleDelaySeconds": 5,
        "downscaleDelaySeconds": 300,
    },
    "batching": {"maxBatchSize": 16, "maxBatchTokens": 4096, "maxWaitMilliseconds": 0},
    "limits": {
        "maxOngoingRequests": 64,
        "maxQueuedRequests": 256,
        "requestTimeoutSeconds": 60,
        "maxInputTokens": 512,
        "truncateInput": False,
        "perKey": {"requestsPerMinute": 0, "tokensPerMinute": 0, "requestsAtOnce": 0},
    },
    "access": {"allow": []},
    "health": {"periodSeconds": 10, "timeoutSeconds": 30, "gracefulShutdownSeconds": 20},
    "logging": {"mode": "none", "percent": 1},
    "suspend": False,
    "runtime": "",
}

INTEGERS = {
    "scaling.minReplicas": (0, 100),
    "scaling.maxReplicas": (1, 100),
    "scaling.maxReplicasPerNode": (0, 100),
    "scaling.targetOngoingRequests": (1, 10_000),
    "batching.maxBatchSize": (1, 1024),
    "batching.maxBatchTokens": (1, 1_048_576),
    "batching.maxWaitMilliseconds": (0, 1000),
    "limits.maxOngoingRequests": (1, 10_000),
    "limits.maxQueuedRequests": (1, 100_000),
    "limits.maxInputTokens": (1, 1_048_576),
    "limits.perKey.requestsPerMinute": (0, 1_000_000),
    "limits.perKey.tokensPerMinute": (0, 1_000_000_000),
    "limits.perKey.requestsAtOnce": (0, 100_000),
}
NUMBERS = {
    "scaling.upscaleDelaySeconds": (0, 3600),
    "scaling.downscaleDelaySeconds": (0, 86_400),
    "health.gracefulShutdownSeconds": (0, 3600),
    "resources.count": (0.01, 16),
    "resources.cpus": (0.01, 256),
    "limits.requestTimeoutSeconds": (0.1, 3600),
    "health.periodSeconds": (1, 3600),
    "health.timeoutSeconds": (1, 3600),
    "logging.percent": (0, 100),
}
STRINGS = [
    "model.uri",
    "model.revision",
    "model.task",
    "model.dtype",
    "resources.profile",
    "resources.memory",
    "logging.mode",
    "runtime",
]
SECTIONS = [
    "model",
    "resources",
    "scaling",
    "batching",
    "limits",
    "limits.perKey",
    "access",
    "health",
    "logging",
]
FLAGS = ["limits.truncateInput", "suspend"]
EVERY_FIELD = [*SECTIONS, *INTEGERS, *NUMBERS, *STRINGS, *FLAGS, "model.parameters"]

# Everything around the field under test allows its whole range.
ROOMY = manifest(
    scaling={"maxReplicas": 100}, batching={"maxBatchSize": 1}, limits={"maxOngoingRequests": 10_000}
)
TIGHT = {"scaling.maxReplicas": "scaling.minReplicas", "limits.maxOngoingRequests": "batching.maxBatchSize"}


def spec_with(path, value):
    document = with_value(ROOMY, f"spec.{path}", value)
    partner = TIGHT.get(path)
    return with_value(document, f"spec.{partner}", 0 if "Replicas" in path else 1) if partner else document


def problems_of(document):
    with pytest.raises(ValidationError) as caught:
        parse_endpoint(document)
    return [str(problem) for problem in describe(caught.value, ModelEndpoint)]


def test_only_uri_and_task_are_required():
    spec = parse_endpoint(manifest()).spec
    assert spec.model_dump(by_alias=True, mode="json") == DEFAULTS


@pytest.mark.parametrize("path", ["spec", "spec.model", "spec.model.uri", "spec.model.task", "metadata.name"])
def test_a_missing_required_field_is_named(path):
    parent, _, last = path.rpartition(".")
    document = manifest()
    inner = document
    for part in parent.split(".") if parent else []:
        inner = inner[part]
    del inner[last]
    assert problems_of(document) == [f"{path}: is required"]


@given(strategies.manifests())
def test_every_allowed_manifest_is_read_without_loss(document):
    endpoint = parse_endpoint(document)
    assert parse_endpoint(endpoint.model_dump(by_alias=True, mode="json")) == endpoint


@pytest.mark.parametrize("path", EVERY_FIELD)
@pytest.mark.parametrize("value", [None, ["a"]], ids=["null", "list"])
def test_no_field_takes_what_is_no_value_for_it(path, value):
    [problem] = problems_of(spec_with(path, value))
    assert problem.startswith(f"spec.{path}: got ")


@pytest.mark.parametrize("path", INTEGERS)
@pytest.mark.parametrize("value", [True, 1.0, "1", float("nan"), float("inf")])
def test_an_integer_field_takes_only_integers(path, value):
    [problem] = problems_of(spec_with(path, value))
    assert problem.startswith(f"spec.{path}: got {value!r}; input should be")


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize("value", [True, "1"])
def test_a_number_field_takes_only_numbers(path, value):
    assert problems_of(spec_with(path, value)) == [
        f"spec.{path}: got {value!r}; input should be a valid number"
    ]


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_field_takes_only_finite_numbers(path, value):
    assert problems_of(spec_with(path, value)) == [
        f"spec.{path}: got {value!r}; input should be a finite number"
    ]


@pytest.mark.parametrize("path", STRINGS)
@pytest.mark.parametrize("value", [1, True, 1.5])
def test_a_text_field_takes_only_text(path, value):
    [problem] = problems_of(spec_with(path, value))
    assert problem.startswith(f"spec.{path}: got {value!r}; input should be")


@pytest.mark.parametrize("path", FLAGS)
@pytest.mark.parametrize("value", [1, 0, "true", "yes"])
def test_a_flag_takes_only_true_and_false(path, value):
    assert problems_of(spec_with(path, value)) == [
        f"spec.{path}: got {value!r}; input should be a valid boolean"
    ]


@pytest.mark.parametrize(("path", "bounds"), (INTEGERS | NUMBERS).items())
def test_both_bounds_are_allowed(path, bounds):
    for bound in bounds:
        parse_endpoint(spec_with(path, bound))


@pytest.mark.parametrize(("path", "bounds"), (INTEGERS | NUMBERS).items())
def test_a_value_beyond_a_bound_is_refused_with_the_bound(path, bounds):
    low, high = bounds
    below, above = problems_of(spec_with(path, low - 1)), problems_of(spec_with(path, high + 1))
    assert below == [f"spec.{path}: got {low - 1}; input should be greater than or equal to {low}"]
    assert above == [f"spec.{path}: got {high + 1}; input should be less than or equal to {high}"]


@pytest.mark.parametrize(
    ("where", "allowed"),
    [
        ("", "apiVersion, kind, metadata, spec, status"),
        ("spec.", "access, batching, health, limits, logging, model, resources, runtime, scaling, suspend"),
        ("spec.model.", "dtype, parameters, revision, task, tokenSecret, uri"),
        ("spec.resources.", "count, cpus, memory, profile"),
        ("spec.batching.", "maxBatchSize, maxBatchTokens, maxWaitMilliseconds"),
        ("spec.health.", "gracefulShutdownSeconds, periodSeconds, timeoutSeconds"),
    ],
)
def test_an_unknown_field_is_named_with_those_allowed_there(where, allowed):
    problems = problems_of(with_value(manifest(), f"{where}surprise", 1))
    assert problems == [f"{where}surprise: unknown field; allowed here: {allowed}"]


def test_the_python_spelling_of_a_field_is_unknown():
    [problem] = problems_of(with_value(manifest(), "spec.scaling.min_replicas", 1))
    assert problem.startswith("spec.scaling.min_replicas: unknown field")


def test_metadata_may_hold_whatever_kubernetes_puts_there():
    document = with_value(manifest(), "metadata.managedFields", [{"manager": "kubectl"}])
    assert parse_endpoint(document).key == ("default", "sentiment")


@pytest.mark.parametrize(
    ("path", "value"), [("apiVersion", "serving.modelendpoint.dev/v1"), ("kind", "Pod"), ("kind", None)]
)
def test_another_kind_or_version_is_refused_with_ours(path, value):
    [problem] = problems_of(with_value(manifest(), path, value))
    assert problem.startswith(f"{path}: got {value!r}; input should be '")


@pytest.mark.parametrize("document", [None, 1, "text", [], ["a"]])
def test_a_document_that_is_no_mapping_is_refused(document):
    [problem] = problems_of(document)
    assert problem.startswith(f"got {document!r}; input should be a valid dictionary")


@pytest.mark.parametrize("task", Task)
def test_every_task_can_be_named(task):
    assert parse_endpoint(manifest(model={"task": task.value})).spec.model.task is task


def test_an_unknown_task_is_refused_with_the_known_ones():
    [problem] = problems_of(manifest(model={"task": "image-classification"}))
    assert problem.startswith("spec.model.task: got 'image-classification'; input should be ")
    assert all(repr(task.value) in problem for task in Task)


def test_all_problems_of_a_manifest_are_reported_at_once():
    document = manifest(resources={"cpus": 0}, scaling={"minReplicas": -1}, suspend="no")
    assert [problem.partition(":")[0] for problem in problems_of(document)] == [
        "spec.resources.cpus",
        "spec.scaling.minReplicas",
        "spec.suspend",
    ]


def test_a_long_value_is_shown_shortened():
    [problem] = problems_of(manifest(model={"dtype": "x" * 10_000}))
    assert len(problem) < 250


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (None, ""),
    ],
)
def test_a_creation_time_is_read_as_yaml_leaves_it(written, read):
    assert endpoint(created=written).metadata.creation_timestamp == read


def test_a_manifest_from_a_cluster_may_have_a_status():
    from_cluster = manifest() | {"status": {"conditions": [], "anything": 1}}
    assert parse_endpoint(from_cluster).spec == endpoint().spec
