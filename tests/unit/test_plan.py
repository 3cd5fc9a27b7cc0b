"""What a plan says of each change, held against Ray's own code where Ray decides."""

import json
from dataclasses import replace

import pytest
from ray.serve._private.config import DeploymentConfig
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve._private.utils import DeploymentOptionUpdateType
from ray.serve._private.version import DeploymentVersion
from ray.serve.schema import ServeApplicationSchema

from endpoint_operator.api.sources import Sources
from endpoint_operator.api.status import Rollout, RolloutPhase
from endpoint_operator.cli.plan import Action, Place, Served, plan_endpoints
from endpoint_operator.serveconfig.compiler import compile_entry
from endpoint_operator.serveconfig.document import fingerprint
from endpoint_operator.serveconfig.fields import DERIVED, FIELDS, NOT_IN_THE_ENTRY, Effect, effect_of
from endpoint_operator.serveconfig.schema import AutoscalingConfig, Deployment, RayActorOptions
from serve_app.contract import ModelArgs, UserConfig
from tests.harness.builders import CLUSTER, endpoint, spec_fields

SCALED = {"scaling": {"minReplicas": 1, "maxReplicas": 4}}
ON_A_GPU = {"resources": {"profile": "gpu-t4"}}

# A field, the section before and after, what is shown of both, and what becomes of the endpoint.
CHANGES = [
    ("model.uri", {}, {"model": {"uri": "hf://a/b"}}, "file:///models/sentiment", "hf://a/b"),
    (
        "model.revision",
        {"model": {"uri": "hf://a/b"}},
        {"model": {"uri": "hf://a/b", "revision": "v2"}},
        "",
        "v2",
    ),
    (
        "model.tokenSecret",
        {"model": {"uri": "hf://a/b"}},
        {"model": {"uri": "hf://a/b", "tokenSecret": "team-a"}},
        "",
        "team-a",
    ),
    (
        "model.task",
        {},
        {"model": {"task": "feature-extraction"}},
        "text-classification",
        "feature-extraction",
    ),
    (
        "model.task",
        SCALED,
        SCALED | {"model": {"task": "text-generation"}},
        "text-classification",
        "text-generation",
    ),
    ("model.dtype", {}, {"model": {"dtype": "float16"}}, "auto", "float16"),
    ("model.parameters.top_k", {}, {"model": {"parameters": {"top_k": 2}}}, None, 2),
    ("resources.profile", {}, ON_A_GPU, "cpu", "gpu-t4"),
    ("resources.count", ON_A_GPU, {"resources": {"profile": "gpu-t4", "count": 2}}, 1, 2),
    ("resources.cpus", {}, {"resources": {"cpus": 2}}, 1, 2),
    ("resources.memory", {}, {"resources": {"memory": "512Mi"}}, "2Gi", "512Mi"),
    ("scaling.minReplicas", SCALED, {"scaling": {"minReplicas": 2, "maxReplicas": 4}}, 1, 2),
    ("scaling.maxReplicas", {}, SCALED, 1, 4),
    ("scaling.maxReplicas", SCALED, {}, 4, 1),
    ("scaling.maxReplicasPerNode", {}, {"scaling": {"maxReplicasPerNode": 2}}, 0, 2),
    ("scaling.maxReplicasPerNode", {"scaling": {"maxReplicasPerNode": 2}}, {}, 2, 0),
    (
        "scaling.targetOngoingRequests",
        SCALED,
        {"scaling": SCALED["scaling"] | {"targetOngoingRequests": 2}},
        8,
        2,
    ),
    (
        "scaling.upscaleDelaySeconds",
        SCALED,
        {"scaling": SCALED["scaling"] | {"upscaleDelaySeconds": 9}},
        5,
        9,
    ),
    (
        "scaling.downscaleDelaySeconds",
        SCALED,
        {"scaling": SCALED["scaling"] | {"downscaleDelaySeconds": 9}},
        300,
        9,
    ),
    ("batching.maxBatchSize", {}, {"batching": {"maxBatchSize": 32}}, 16, 32),
    ("batching.maxBatchTokens", {}, {"batching": {"maxBatchTokens": 32}}, 4096, 32),
    ("batching.maxWaitMilliseconds", {}, {"batching": {"maxWaitMilliseconds": 3}}, 0, 3),
    ("limits.maxOngoingRequests", {}, {"limits": {"maxOngoingRequests": 32}}, 64, 32),
    ("limits.maxQueuedRequests", {}, {"limits": {"maxQueuedRequests": 32}}, 256, 32),
    ("limits.requestTimeoutSeconds", {}, {"limits": {"requestTimeoutSeconds": 3}}, 60, 3),
    ("limits.maxInputTokens", {}, {"limits": {"maxInputTokens": 3}}, 512, 3),
    ("limits.truncateInput", {}, {"limits": {"truncateInput": True}}, False, True),
    ("access.allow", {}, {"access": {"allow": ["team-a"]}}, [], ["team-a"]),
    ("limits.perKey.requestsPerMinute", {}, {"limits": {"perKey": {"requestsPerMinute": 3}}}, 0, 3),
    ("limits.perKey.tokensPerMinute", {}, {"limits": {"perKey": {"tokensPerMinute": 3}}}, 0, 3),
    ("limits.perKey.requestsAtOnce", {}, {"limits": {"perKey": {"requestsAtOnce": 3}}}, 0, 3),
    ("logging.mode", {}, {"logging": {"mode": "metadata"}}, "none", "metadata"),
    ("logging.percent", {}, {"logging": {"percent": 5}}, 1, 5),
    ("health.periodSeconds", {}, {"health": {"periodSeconds": 3}}, 10, 3),
    ("health.timeoutSeconds", {}, {"health": {"timeoutSeconds": 3}}, 30, 3),
    ("health.gracefulShutdownSeconds", {}, {"health": {"gracefulShutdownSeconds": 3}}, 20, 3),
]


def entry(**spec):
    return compile_entry(endpoint(**spec), CLUSTER)


def the_plan(endpoint, served):
    [plan] = plan_endpoints([endpoint], CLUSTER, served)
    return plan


def plan_of(before, **spec):
    """Return the plan for an endpoint that is served as `before`, or not at all."""
    return the_plan(endpoint(**spec), Served({} if before is None else {"sentiment": before}))


@pytest.mark.parametrize(("field", "before", "after", "old", "new"), CHANGES)
def test_a_change_is_told_once_in_the_words_of_the_manifest(field, before, after, old, new):
    [change] = plan_of(entry(**before), **after).changes
    assert (change.field, change.old, change.new) == (field, old, new)


def test_every_field_is_tried():
    fields = {field.spec for field in FIELDS} - {"model.parameters"}
    assert {row[0] for row in CHANGES} == fields | {"model.parameters.top_k"}


def test_every_field_of_the_spec_has_one_row():
    assert sorted(spec_fields()) == sorted([*(field.spec for field in FIELDS), *NOT_IN_THE_ENTRY])


def test_every_option_that_is_written_comes_from_one_row_or_is_derived():
    sections = {
        "args": ModelArgs,
        "user_config": UserConfig,
        "autoscaling_config": AutoscalingConfig,
        "ray_actor_options": RayActorOptions,
    }
    places = {f"{section}.{name}" for section, model in sections.items() for name in model.model_fields}
    places |= Deployment.model_fields.keys() - sections.keys()
    assert sorted([*(field.place for field in FIELDS), *DERIVED]) == sorted(places - {"name", "args.name"})


@pytest.mark.parametrize(("before", "after"), [(row[1], row[2]) for row in CHANGES])
def test_what_restarts_is_what_ray_restarts(before, after):
    plan = plan_of(entry(**before), **after)
    restarts = ray_version(entry(**before)).requires_actor_restart(ray_version(entry(**after)))
    assert plan.action is (Action.RESTART if restarts else Action.LIVE)


def test_an_entry_from_before_the_policy_is_told_to_restart_as_ray_restarts_it():
    generating = SCALED | {"model": {"task": "text-generation"}}
    document = json.loads(entry(**generating))
    del document["deployments"][0]["autoscaling_config"]["policy"]
    before = json.dumps(document)
    [change] = plan_of(before, **generating).changes
    assert str(change).startswith("autoscaling_config.policy of the Serve config: unset → ")
    assert change.effect is Effect.REPLACED
    assert ray_version(before).requires_actor_restart(ray_version(entry(**generating)))


def ray_version(text):
    """Return the version that Serve gives to the deployment, as it compares it with another."""
    schema = ServeApplicationSchema.model_validate(json.loads(text))
    [deployment] = schema.deployments
    options = deployment.ray_actor_options.model_dump(exclude_unset=True)
    limit = deployment.model_dump(exclude_unset=True).get("max_replicas_per_node")
    return DeploymentVersion(
        get_app_code_version(schema), DeploymentConfig(), options, max_replicas_per_node=limit
    )


def test_every_field_that_we_write_has_an_effect_and_ray_agrees():
    written = Deployment.model_fields.keys() - {"name"} | {"args"}
    for name in written & DeploymentConfig.model_fields.keys():
        update = DeploymentConfig.model_fields[name].json_schema_extra["update_type"]
        assert update is not DeploymentOptionUpdateType.HeavyWeight
        assert effect_of(name) is Effect.IN_PLACE
    replaced = {name for name in written if effect_of(name) is Effect.REPLACED}
    assert replaced == written - DeploymentConfig.model_fields.keys()


def test_what_is_not_served_is_new():
    assert plan_of(None).action is Action.NEW


def test_the_same_is_unchanged():
    plan = plan_of(entry(**SCALED), **SCALED)
    assert (plan.action, plan.changes, plan.reason) == (Action.UNCHANGED, (), "")


def test_another_spelling_of_the_same_memory_is_unchanged():
    assert plan_of(entry(), resources={"memory": "2048Mi"}).action is Action.UNCHANGED


def test_a_value_that_decides_nothing_is_unchanged():
    assert plan_of(entry(), scaling={"targetOngoingRequests": 3}).action is Action.UNCHANGED


def test_a_change_that_replaces_replicas_comes_first():
    plan = plan_of(entry(), batching={"maxBatchSize": 2}, model={"dtype": "float16"})
    assert plan.action is Action.RESTART
    assert [change.effect for change in plan.changes] == [Effect.REPLACED, Effect.IN_PLACE]
    assert plan.rows == [
        ("sentiment", "restart", "model.dtype: auto → float16, replicas are replaced, without a gap"),
        ("", "", "batching.maxBatchSize: 16 → 2, taken over in place"),
    ]


def test_a_parameter_that_goes_is_told():
    before = entry(model={"parameters": {"top_k": 2}})
    [change] = plan_of(before).changes
    assert str(change) == "model.parameters.top_k: 2 → unset, taken over in place"


def test_suspended_its_replicas_go():
    plan = plan_of(entry(), suspend=True)
    assert plan.action is Action.STOP
    assert "its replicas go" in plan.reason


def test_suspended_and_not_served_nothing_changes():
    assert plan_of(None, suspend=True).action is Action.UNCHANGED


@pytest.mark.parametrize(("before", "kept"), [(None, False), (entry(), True)])
def test_what_fits_nowhere_is_rejected_and_what_is_served_stays(before, kept):
    plan = plan_of(before, resources={"profile": "tpu"})
    assert plan.action is Action.REJECTED
    assert plan.reason.startswith("resources.profile: no profile is named 'tpu'")
    assert plan.reason.endswith("what is served stays") == kept


def only_from(*rules):
    """Return the profiles of a cluster whose chart lists these sources."""
    return replace(CLUSTER, sources=Sources(rules))


@pytest.mark.parametrize(
    ("served", "end"),
    [
        (None, "sources.allow of the chart has hf://org"),
        (entry(model={"uri": "hf://org/name"}), "; what is served stays"),
        (entry(), "; what is served goes, because its source is not allowed either"),
    ],
)
def test_a_source_that_is_not_allowed_is_rejected_with_what_becomes_of_what_is_served(served, end):
    entries = {} if served is None else {"sentiment": served}
    [plan] = plan_endpoints([endpoint()], only_from("hf://org"), Served(entries))
    assert plan.action is Action.REJECTED
    assert plan.reason.startswith("model.uri: file:///models/sentiment is no allowed source; ")
    assert plan.reason.endswith(end)


def test_what_would_be_too_large_is_rejected_and_what_is_served_stays():
    labels = ["\N{SLIGHTLY SMILING FACE}" * 200] * 60
    large = {"task": "zero-shot-classification", "parameters": {"candidate_labels": labels}}
    plan = plan_of(entry(), model=large)
    assert plan.action is Action.REJECTED
    assert plan.reason.startswith("model.parameters.candidate_labels: has 48,")
    assert plan.reason.endswith("; what is served stays")


def test_a_version_that_was_taken_back_is_rejected_and_the_next_one_is_not():
    failed = Rollout(
        fingerprint=fingerprint(entry(model={"dtype": "float16"})),
        phase=RolloutPhase.BACKING_OFF,
        message="no memory",
    )
    served = Served({"sentiment": entry()}, {"sentiment": failed})
    again = the_plan(endpoint(model={"dtype": "float16"}), served)
    assert again.action is Action.REJECTED
    assert "no memory" in again.reason
    assert the_plan(endpoint(model={"dtype": "bfloat16"}), served).action is Action.RESTART


@pytest.mark.parametrize(("planned", "action"), [("default", Action.NEW), ("b", Action.REJECTED)])
def test_a_manifest_for_another_namespace_is_rejected(planned, action):
    place = Place(planned, "ray", is_default=True)
    assert the_plan(endpoint(namespace="default"), Served({}, place=place)).action is action


@pytest.mark.parametrize(
    ("runtime", "is_default", "live", "action", "reason"),
    [
        ("ray", False, False, Action.NEW, "it is not served yet"),
        ("", True, False, Action.NEW, "it is not served yet"),
        (
            "",
            False,
            False,
            Action.UNCHANGED,
            "runtime is not set, and 'ray' is not the namespace's default runtime",
        ),
        (
            "other",
            True,
            False,
            Action.UNCHANGED,
            "runtime is 'other', and this plan is for 'ray': it is not served here",
        ),
        ("other", True, True, Action.STOP, "runtime is 'other', and this plan is for 'ray': its replicas go"),
    ],
)
def test_an_endpoint_is_planned_on_the_ray_service_that_serves_it(runtime, is_default, live, action, reason):
    served = Served({"sentiment": entry()} if live else {}, place=Place("default", "ray", is_default))
    plan = the_plan(endpoint(runtime=runtime), served)
    assert plan.action is action
    assert plan.reason.startswith(reason)


def test_a_runtime_means_nothing_to_a_file():
    assert plan_of(entry(), runtime="other").action is Action.UNCHANGED


def edited(text, **changes):
    document = json.loads(text)
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = document
        for parent in parents:
            part = part[int(parent) if parent.isdigit() else parent]
        part[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    "changes",
    [
        {"import_path": "evil:app"},
        {"deployments": []},
        {"deployments__0__name": "Other"},
        {"deployments__0__nonsense": 1},
        {"deployments__0__user_config": {"max_batch_size": "many"}},
    ],
)
def test_of_an_entry_that_somebody_else_wrote_a_restart_is_feared(changes):
    plan = plan_of(edited(entry(), **changes))
    assert plan.action is Action.RESTART
    assert "not written by this version" in plan.reason


def test_arguments_that_mean_the_same_and_are_written_differently_restart_as_ray_compares_text():
    plan = plan_of(edited(entry(), args__revision=""))
    assert plan.action is Action.RESTART
    assert [str(change) for change in plan.changes] == [
        "args of the Serve config: is written differently, replicas are replaced, without a gap"
    ]


def test_each_endpoint_has_a_plan_and_what_is_not_in_the_files_has_none():
    plans = plan_endpoints([endpoint("b"), endpoint("a")], CLUSTER, Served({"c": entry()}))
    assert [plan.name for plan in plans] == ["a", "b"]


def test_a_version_that_stepped_aside_has_not_failed():
    aside = Rollout(
        fingerprint=fingerprint(entry()),
        phase=RolloutPhase.BACKING_OFF,
        reason="RayServiceUpgrading",
        next_attempt_time="2026-01-01T00:00:00Z",
    )
    assert the_plan(endpoint(), Served({}, {"sentiment": aside})).action is Action.NEW
