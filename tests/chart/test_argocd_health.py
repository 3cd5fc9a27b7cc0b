"""Argo CD's health check of a ModelEndpoint: its Lua is run, in the version of Lua that Argo CD has, 5.1."""

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from endpoint_operator.api.status import REASONS, parse_status
from endpoint_operator.api.types import GROUP, KIND
from hack.paths import PROJECT

PATCH = yaml.safe_load((PROJECT / "manifests/argocd/health-modelendpoint.yaml").read_text())
SCRIPT = PATCH["data"][f"resource.customizations.health.{GROUP}_{KIND}"]
GENERATION = 3


def health(status, **spec):
    """Return what Argo CD would make of an endpoint: its health and the message."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    endpoint = {"metadata": {"name": "a", "generation": GENERATION}, "spec": spec}
    if status is not None:
        endpoint["status"] = status
    lua.globals().obj = lua.table_from(endpoint, recursive=True)
    answer = lua.execute(SCRIPT)
    return answer["status"], answer["message"]


def condition(kind, status, reason, message):
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": GENERATION,
        "lastTransitionTime": "2026-11-25T10:00:00Z",
    }


def status_of(reason, ready, *, reconciling=False, stalled=False, message="why", generation=GENERATION):
    """Return a status as the operator writes it; without a Ready condition if `ready` is None."""
    conditions = [
        condition("Reconciling", str(reconciling), reason, message),
        condition("Stalled", str(stalled), reason, message),
        condition("Accepted", "True", "Accepted", ""),
    ]
    if ready is not None:
        conditions.insert(0, condition("Ready", ready, reason, message))
    status = {"observedGeneration": generation, "conditions": conditions, "url": "", "profile": "cpu"}
    assert len(parse_status(status).conditions) == len(conditions)
    return status


@pytest.mark.parametrize("suspend", [True, False])
@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"observedGeneration": -1},
        status_of("Serving", "True", generation=GENERATION - 1),
        status_of("Withdrawn", "False", stalled=True, generation=GENERATION - 1),
    ],
    ids=["no status", "empty", "never observed", "an older spec served", "an older spec failed"],
)
def test_a_spec_that_was_not_observed_is_progressing(status, suspend):
    verdict, message = health(status, suspend=suspend)
    assert verdict == "Progressing"
    assert "not observed" in message


def test_what_is_suspended_is_suspended():
    assert health(status_of("Suspended", None, message="by its spec"), suspend=True) == (
        "Suspended",
        "Suspended: by its spec",
    )


def test_what_is_stalled_is_degraded_with_the_reason():
    status = status_of("Withdrawn", "False", stalled=True, message="there is no folder X")
    assert health(status) == ("Degraded", "Withdrawn: there is no folder X")


def test_what_is_ready_is_healthy():
    assert health(status_of("Serving", "True", message="")) == ("Healthy", "Serving")


def test_what_is_reconciled_is_progressing_with_the_reason():
    status = status_of("Deploying", "False", reconciling=True, message="it loads")
    assert health(status) == ("Progressing", "Deploying: it loads")


def test_what_is_unknown_is_progressing_with_the_reason():
    status = status_of("RayServiceStatusStale", "Unknown", message="KubeRay is silent")
    assert health(status) == ("Progressing", "RayServiceStatusStale: KubeRay is silent")


def test_what_says_nothing_is_progressing():
    assert health({"observedGeneration": GENERATION, "conditions": []})[0] == "Progressing"


def test_a_condition_of_another_controller_changes_nothing():
    status = status_of("Serving", "True", message="")
    status["conditions"].append(condition("example.com/Checked", "False", "Failed", "not ours"))
    assert health(status) == ("Healthy", "Serving")


@pytest.mark.parametrize("reason", [reason for reason in REASONS if reason != "Suspended"])
def test_each_reason_has_the_health_of_its_conditions(reason):
    meaning = REASONS[reason]
    status = status_of(reason, meaning.ready, reconciling=meaning.reconciling, stalled=meaning.stalled)
    expected = "Degraded" if meaning.stalled else "Healthy" if meaning.ready == "True" else "Progressing"
    assert health(status) == (expected, f"{reason}: why")


def test_the_patch_adds_one_key_to_argo_cd_s_own_configuration():
    assert (PATCH["kind"], PATCH["metadata"]["name"], len(PATCH["data"])) == ("ConfigMap", "argocd-cm", 1)
