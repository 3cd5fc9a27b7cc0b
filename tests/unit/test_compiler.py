import json
import random
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_operator.api.json_text import to_json
from endpoint_operator.api.profiles import parse_profiles
from endpoint_operator.api.types import parse_endpoint
from endpoint_operator.serveconfig.compiler import (
    MAX_ENTRY_BYTES,
    Compilation,
    EntryTooLargeError,
    Rejection,
    compile_entry,
    compile_serve_config,
    gateway_application,
)
from serve_app.contract import SCALING_POLICY_IMPORT_PATH, Task
from tests.harness.builders import CLUSTER, MACHINE, endpoint, manifest, with_value
from tests.unit import strategies

# Ray's own code; none of it is ours to change.
with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    from ray.serve.schema import ServeDeploySchema

BAD_RESOURCES = [{"profile": "nowhere"}, {"count": 2}, {"profile": "gpu-t4", "count": 5}, {"memory": "17Gi"}]

# A field, a value that is not its default, and where alone in the deployment it may show.
TUNABLE_FIELDS = [
    ("model.parameters", {"top_k": 2}, {"user_config"}),
    ("batching.maxBatchSize", 8, {"user_config"}),
    ("batching.maxBatchTokens", 100, {"user_config"}),
    ("batching.maxWaitMilliseconds", 5, {"user_config"}),
    ("limits.maxOngoingRequests", 32, {"user_config", "max_ongoing_requests"}),
    ("limits.maxQueuedRequests", 8, {"user_config", "max_ongoing_requests", "max_queued_requests"}),
    ("limits.requestTimeoutSeconds", 5, {"user_config"}),
    ("limits.maxInputTokens", 64, {"user_config"}),
    ("limits.truncateInput", True, {"user_config"}),
    ("logging.mode", "sampled", {"user_config"}),
    ("logging.percent", 50, {"user_config"}),
    # A fixed number becomes bounds.
    ("scaling.minReplicas", 0, {"num_replicas", "autoscaling_config"}),
    ("scaling.maxReplicas", 4, {"num_replicas", "autoscaling_config"}),
    ("scaling.maxReplicasPerNode", 2, {"max_replicas_per_node"}),
    ("resources.profile", "gpu-t4", {"ray_actor_options"}),
    ("resources.cpus", 2, {"ray_actor_options"}),
    ("resources.memory", "1Gi", {"ray_actor_options"}),
    ("health.periodSeconds", 1, {"health_check_period_s"}),
    ("health.timeoutSeconds", 1, {"health_check_timeout_s"}),
    ("health.gracefulShutdownSeconds", 1, {"graceful_shutdown_timeout_s"}),
]

AUTOSCALER_FIELDS = [("targetOngoingRequests", 2), ("upscaleDelaySeconds", 1), ("downscaleDelaySeconds", 1)]

IDENTITY_FIELDS = [
    ("model.uri", "hf://org/other", {"uri"}),
    ("model.revision", "v2", {"revision"}),
    ("model.tokenSecret", "team-a", {"token_secret"}),
    ("model.task", "fill-mask", {"task"}),
    ("model.dtype", "float32", {"dtype"}),
]

ON_A_HUB = manifest(model={"uri": "hf://org/name"})


def in_words(part):
    """Return the same name for a part in each process, in which sets have orders of their own."""
    return str(sorted(part)) if isinstance(part, set) else str(part)


def applications(endpoints, profiles=CLUSTER):
    """Return each application of the compiled configuration by its name."""
    document = json.loads(compile_serve_config(endpoints, profiles).document)
    return {application["name"]: application for application in document["applications"]}


def application(document):
    return applications([parse_endpoint(document)])["sentiment"]


def changed_keys(before, after):
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
@given(strategies.endpoint_sets())
def test_ray_drops_nothing_of_what_is_written(endpoints):
    document = json.loads(compile_serve_config(endpoints, CLUSTER).document)
    read = ServeDeploySchema.model_validate(document)
    assert read.model_dump(exclude_unset=True) == document


@given(strategies.endpoint_sets(), st.randoms(use_true_random=False))
def test_the_order_of_the_endpoints_does_not_matter(endpoints, generator):
    shuffled = generator.sample(endpoints, len(endpoints))
    assert compile_serve_config(shuffled, CLUSTER) == compile_serve_config(endpoints, CLUSTER)


@pytest.mark.parametrize(("workers", "gateways"), [(0, 1), (1, 1), (2, 2), (9, 2)])
def test_where_two_workers_are_always_there_the_gateway_has_a_replica_for_each(workers, gateways):
    accelerated = {"name": "gpu", "cpus": 1, "memory": "1Gi", "accelerators": 1, "minWorkers": 5}
    plain = {"name": "cpu", "cpus": 1, "memory": "1Gi", "minWorkers": workers, "maxWorkers": 9}
    profiles = parse_profiles({"profiles": [accelerated | {"maxWorkers": 5}, plain]})
    [deployment] = gateway_application(profiles).deployments
    assert deployment.num_replicas == gateways


@given(strategies.endpoint_sets())
def test_there_is_the_gateway_and_each_endpoint_that_is_not_suspended_in_order(endpoints):
    served = [endpoint.name for endpoint in endpoints if not endpoint.spec.suspend]
    assert list(applications(endpoints)) == sorted([*served, "gateway"])


@given(strategies.endpoint_sets())
def test_the_text_has_one_line_and_sorted_keys(endpoints):
    document = compile_serve_config(endpoints, CLUSTER).document
    assert document == to_json(json.loads(document))


@given(strategies.endpoint_sets(), st.sampled_from(BAD_RESOURCES))
def test_a_bad_endpoint_changes_no_byte_of_anothers_entry(endpoints, resources):
    bad = endpoint("bad-one", resources=resources)
    others = [endpoint for endpoint in endpoints if endpoint.name != "bad-one"]
    with_bad = compile_serve_config([*others, bad], CLUSTER)
    assert with_bad.document == compile_serve_config(others, CLUSTER).document
    assert [rejection.key for rejection in with_bad.rejections] == [("default", "bad-one")]


@given(strategies.endpoint_sets(max_size=3), strategies.endpoints())
def test_another_endpoint_changes_no_byte_of_those_that_are_there(endpoints, another):
    before = applications([endpoint for endpoint in endpoints if endpoint.name != another.name])
    after = applications([*(endpoint for endpoint in endpoints if endpoint.name != another.name), another])
    assert {name: after[name] for name in before} == before


@given(strategies.endpoint_sets(max_size=3), strategies.manifests(names=st.just("twice")))
def test_a_younger_endpoint_of_the_same_name_changes_nothing(endpoints, document):
    others = [endpoint for endpoint in endpoints if endpoint.name != "twice"]
    elder = endpoint("twice", created="2025-01-01T00:00:00Z")
    younger = parse_endpoint(
        with_value(
            with_value(document, "metadata.creationTimestamp", "2025-01-02T00:00:00Z"), "spec.suspend", False
        )
    )
    before = compile_serve_config([*others, elder], CLUSTER)
    assert compile_serve_config([younger, *others, elder], CLUSTER).document == before.document


def of_labels(*labels):
    parameters = {"candidate_labels": list(labels)}
    return endpoint(model={"task": "zero-shot-classification", "parameters": parameters})


SMILES = "\N{SLIGHTLY SMILING FACE}" * 200


def test_an_entry_may_have_its_greatest_size_and_no_byte_more():
    missing = MAX_ENTRY_BYTES - len(compile_entry(of_labels(*[SMILES] * 40, ""), CLUSTER).encode())
    # This letter has 6 bytes in an entry.
    last = "é" * (missing // 6) + "a" * (missing % 6)
    assert len(compile_entry(of_labels(*[SMILES] * 40, last), CLUSTER).encode()) == MAX_ENTRY_BYTES
    with pytest.raises(EntryTooLargeError):
        compile_entry(of_labels(*[SMILES] * 40, f"{last}a"), CLUSTER)


def test_an_endpoint_whose_entry_is_too_large_is_rejected_with_its_largest_field():
    labels = [SMILES] * 100
    large = of_labels(*labels)
    with pytest.raises(EntryTooLargeError) as caught:
        compile_entry(large, CLUSTER)
    size = len(to_json(labels).encode())
    assert size == 80_301
    assert str(caught.value).startswith(f"model.parameters.candidate_labels: has {size:,} of the 80,")
    assert "an entry may have 32,768" in str(caught.value)
    assert compile_serve_config([large], CLUSTER) == Compilation(
        compile_serve_config([], CLUSTER).document, (Rejection(large.key, str(caught.value)),)
    )


def test_two_endpoints_of_one_name_and_age_are_told_apart_by_their_namespace():
    pair = [endpoint(namespace="b"), endpoint(namespace="a")]
    random.Random(0).shuffle(pair)
    reason = "metadata.name: an older endpoint in another namespace has the name 'sentiment'"
    assert compile_serve_config(pair, CLUSTER).rejections == (Rejection(("b", "sentiment"), reason),)


def test_a_suspended_endpoint_is_left_out_without_a_word():
    compilation = compile_serve_config([endpoint(suspend=True)], CLUSTER)
    assert compilation == compile_serve_config([], CLUSTER)


@pytest.mark.parametrize(("path", "value", "places"), TUNABLE_FIELDS, ids=in_words)
def test_a_setting_leaves_the_arguments_alone_so_that_replicas_need_not_restart(path, value, places):
    before = application(with_value(ON_A_HUB, "spec.scaling.maxReplicas", 1))
    after = application(with_value(ON_A_HUB, f"spec.{path}", value))
    assert changed_keys(before, after) == {"deployments"}
    assert changed_keys(before["deployments"][0], after["deployments"][0]) == places


@pytest.mark.parametrize(("field", "value"), AUTOSCALER_FIELDS)
def test_what_the_autoscaler_heeds_matters_only_between_bounds(field, value):
    bounds = {"minReplicas": 1, "maxReplicas": 3}
    before, after = (endpoint(scaling={**bounds, **more}) for more in ({}, {field: value}))
    [old], [new] = (applications([each])["sentiment"]["deployments"] for each in (before, after))
    assert changed_keys(old, new) == {"autoscaling_config"}
    fixed = endpoint(scaling={"minReplicas": 2, "maxReplicas": 2, field: value})
    [deployment] = applications([fixed])["sentiment"]["deployments"]
    assert deployment["num_replicas"] == 2
    assert "autoscaling_config" not in deployment


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("bounds", [(0, 2), (1, 1)])
def test_only_models_that_generate_in_steps_are_scaled_by_what_they_hold(task, bounds):
    lower, upper = bounds
    scaling = {"minReplicas": lower, "maxReplicas": upper}
    [deployment] = applications([endpoint(model={"task": str(task)}, scaling=scaling)])["sentiment"][
        "deployments"
    ]
    ours = lower < upper and task is Task.TEXT_GENERATION
    policy = {"policy_function": SCALING_POLICY_IMPORT_PATH} if ours else None
    assert deployment.get("autoscaling_config", {}).get("policy") == policy


@pytest.mark.parametrize(("path", "value", "places"), IDENTITY_FIELDS, ids=in_words)
def test_what_the_model_is_stands_in_the_arguments_alone(path, value, places):
    before, after = application(ON_A_HUB), application(with_value(ON_A_HUB, f"spec.{path}", value))
    assert changed_keys(before, after) == {"args"}
    assert changed_keys(before["args"], after["args"]) == places


def test_a_default_means_the_same_whether_it_is_written_or_not():
    spelled_out = endpoint().model_dump(by_alias=True, mode="json")
    assert applications([parse_endpoint(spelled_out)]) == applications([endpoint()])


@pytest.mark.parametrize("section", ["scaling", "limits", "health"])
def test_a_whole_number_means_the_same_with_and_without_a_decimal_point(section):
    field = {"scaling": "upscaleDelaySeconds", "limits": "requestTimeoutSeconds", "health": "periodSeconds"}
    whole, decimal = endpoint(**{section: {field[section]: 9}}), endpoint(**{section: {field[section]: 9.0}})
    assert compile_serve_config([whole], CLUSTER) == compile_serve_config([decimal], CLUSTER)


@given(strategies.endpoints())
def test_an_endpoint_never_brings_code(endpoint):
    for name, entry in applications([endpoint], MACHINE).items():
        assert entry.keys() == {"name", "route_prefix", "import_path", "args", "deployments"}
        module = "serve_app.gateway:build_gateway" if name == "gateway" else "serve_app.app:build"
        assert entry["import_path"] == module


def test_serves_own_limits_lie_above_those_of_the_replica():
    limits = {"maxOngoingRequests": 16, "maxQueuedRequests": 5}
    deployment = applications([endpoint(limits=limits)])["sentiment"]["deployments"][0]
    assert deployment["max_ongoing_requests"] > 16 + 5
