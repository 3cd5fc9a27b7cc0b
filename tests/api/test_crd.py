"""The committed CRD on a real API server: taken as it is, and what a person then sees."""

import json
import re

import pytest
import yaml

from endpoint_operator.api.types import parse_endpoint
from hack.errors import KubectlError
from hack.paths import CRD, PROJECT
from tests.harness.documents import document

SAMPLES = sorted((PROJECT / "manifests" / "samples").glob("*.yaml"))

READY = {
    "type": "Ready",
    "status": "False",
    "reason": "ModelNotFound",
    "message": "There is no model at file:///models/sentiment.",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
STATUS = {
    "observedGeneration": 1,
    "conditions": [READY],
    "url": "http://ray:8000/v2/models/sentiment",
    "replicas": 2,
    "readyReplicas": 1,
}


# What kstatus takes for an object in progress.
UNSEEN = {"observedGeneration": -1, "url": "", "profile": "", "application": "", "lastError": ""}


@pytest.fixture
def sentiment(kubectl, crd):
    """A stored ModelEndpoint that says only what it must."""
    kubectl("create", "--validate=strict", "--filename=-", manifest=document())
    yield "modelendpoint/sentiment"
    kubectl("delete", "modelendpoint/sentiment")


def patch(kubectl, name, changes, *options):
    kubectl("patch", name, "--type=merge", f"--patch={json.dumps(changes)}", *options)


def created(kubectl, manifest):
    """Return what the API server would store for a manifest; nothing is stored."""
    options = ("--dry-run=server", "--validate=strict", "--output=json", "--filename=-")
    return json.loads(kubectl("create", *options, manifest=manifest))


def table(text):
    """Return the rows of what `kubectl get` prints, each a dictionary by column; a cell may be empty."""
    header, *rows = text.splitlines()
    columns = [(found.group().strip(), found.span()) for found in re.finditer(r"\S+( \S+)*\s*", header)]
    return [{name: row[start:end].strip() for name, (start, end) in columns} for row in rows]


def test_the_api_server_establishes_the_crd_and_finds_its_schema_structural(crd):
    conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_the_api_server_keeps_the_schema_as_it_is(crd):
    committed = yaml.safe_load(CRD.read_text(encoding="utf-8"))
    [stored] = crd["spec"]["versions"]
    assert stored == committed["spec"]["versions"][0]


def test_what_is_left_out_gets_the_defaults_of_the_models(kubectl, sentiment):
    spec = kubectl.get(sentiment)["spec"]
    expected = parse_endpoint(document()).spec.model_dump(by_alias=True, mode="json")
    # The API server has no default for them, and none is needed.
    assert expected["model"].pop("parameters") == {}
    assert spec == expected


@pytest.mark.parametrize("section", ["resources", "scaling", "batching", "limits", "health"])
def test_an_empty_section_gets_its_defaults(kubectl, crd, section):
    stored = created(kubectl, document(**{section: {}}))
    assert stored["spec"][section] == created(kubectl, document())["spec"][section]


def test_a_half_written_section_gets_the_rest_of_its_defaults(kubectl, crd):
    scaling = created(kubectl, document(scaling={"minReplicas": 0, "maxReplicas": 7}))["spec"]["scaling"]
    defaults = {
        "maxReplicasPerNode": 0,
        "targetOngoingRequests": 8,
        "upscaleDelaySeconds": 5,
        "downscaleDelaySeconds": 300,
    }
    assert scaling == {"minReplicas": 0, "maxReplicas": 7} | defaults


def test_the_stored_object_means_what_was_written(kubectl, sentiment):
    stored = kubectl.get(sentiment)
    assert parse_endpoint({key: stored[key] for key in ("apiVersion", "kind", "metadata", "spec")}).spec == (
        parse_endpoint(document()).spec
    )


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_accepted(kubectl, crd, sample):
    kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", f"--filename={sample}")


def test_there_are_samples():
    assert SAMPLES


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("--server-side=false", 'unknown field "spec.scaling.minReplica"'),
        ("--server-side", r"\.spec\.scaling\.minReplica: field not declared in schema"),
    ],
)
def test_apply_refuses_an_unknown_field(kubectl, crd, mode, message):
    misspelt = document(scaling={"minReplica": 1})
    with pytest.raises(KubectlError, match=message):
        kubectl("apply", mode, "--dry-run=server", "--filename=-", manifest=misspelt)


def test_parameters_are_kept_as_they_are_written(kubectl, crd):
    parameters = {
        "top_k": 3,
        "temperature": 0.5,
        "candidate_labels": ["a", "b"],
        "prefix": "",
        "normalize": True,
    }
    stored = created(kubectl, document(model={"parameters": parameters}))
    assert stored["spec"]["model"]["parameters"] == parameters


@pytest.mark.parametrize("mode", ["--server-side=false", "--server-side"])
def test_apply_refuses_an_unknown_parameter(kubectl, crd, mode):
    misspelt = document(model={"parameters": {"topk": 3}})
    with pytest.raises(KubectlError, match=r"spec\.model\.parameters\.topk"):
        kubectl("apply", mode, "--dry-run=server", "--filename=-", manifest=misspelt)


def test_the_status_is_written_by_itself_and_leaves_the_generation(kubectl, sentiment):
    patch(kubectl, sentiment, {"status": STATUS}, "--subresource=status")
    stored = kubectl.get(sentiment)
    defaults = {"profile": "", "application": "", "lastError": ""}
    condition = READY | {"observedGeneration": 0}
    assert stored["status"] == STATUS | defaults | {"conditions": [condition]}
    assert stored["metadata"]["generation"] == 1


def test_who_writes_the_status_cannot_change_the_spec(kubectl, sentiment):
    before = kubectl.get(sentiment)["spec"]
    patch(kubectl, sentiment, {"spec": {"suspend": True}, "status": STATUS}, "--subresource=status")
    stored = kubectl.get(sentiment)
    assert stored["spec"] == before
    assert stored["status"]["replicas"] == 2


def test_who_writes_the_spec_cannot_change_the_status(kubectl, sentiment):
    patch(kubectl, sentiment, {"spec": {"suspend": True}, "status": STATUS})
    stored = kubectl.get(sentiment)
    assert stored["spec"]["suspend"] is True
    assert stored["status"] == UNSEEN


def test_an_object_that_nobody_has_seen_says_so(kubectl, sentiment):
    assert kubectl.get(sentiment)["status"] == UNSEEN


def test_another_controller_may_add_a_condition(kubectl, sentiment):
    conditions = [READY, READY | {"type": "example.com/Audited"}]
    patch(kubectl, sentiment, {"status": STATUS | {"conditions": conditions}}, "--subresource=status")
    stored = kubectl.get(sentiment)["status"]["conditions"]
    assert [condition["type"] for condition in stored] == ["Ready", "example.com/Audited"]


def test_two_writers_keep_each_others_conditions(kubectl, sentiment):
    for kind in ("Ready", "Stalled"):
        applied = document() | {"status": {"conditions": [READY | {"type": kind}]}}
        del applied["spec"]
        manager = f"--field-manager={kind.lower()}"
        kubectl("apply", "--server-side", "--subresource=status", manager, "--filename=-", manifest=applied)
    conditions = kubectl.get(sentiment)["status"]["conditions"]
    assert [condition["type"] for condition in conditions] == ["Ready", "Stalled"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "two words"),
        ("status", "Maybe"),
        ("reason", "two words"),
        ("lastTransitionTime", "yesterday"),
    ],
)
def test_a_condition_that_breaks_the_convention_is_refused(kubectl, sentiment, field, value):
    status = {"conditions": [READY | {field: value}]}
    with pytest.raises(KubectlError, match=rf"status\.conditions\[0\]\.{field}"):
        patch(kubectl, sentiment, {"status": status}, "--subresource=status")


def test_get_shows_why_a_model_is_not_serving(kubectl, sentiment):
    conditions = [READY, READY | {"type": "Reconciling", "status": "True"}]
    patch(kubectl, sentiment, {"status": STATUS | {"conditions": conditions}}, "--subresource=status")
    [row] = table(kubectl("get", "modelendpoints"))
    assert list(row) == ["NAME", "READY", "REASON", "TASK", "PROFILE", "REPLICAS", "AGE"]
    del row["AGE"]
    assert list(row.values()) == ["sentiment", "False", "ModelNotFound", "text-classification", "cpu", "1"]


def test_wide_shows_the_url_too(kubectl, sentiment):
    patch(kubectl, sentiment, {"status": STATUS}, "--subresource=status")
    [row] = table(kubectl("get", "modelendpoints", "--output=wide"))
    assert row["URL"] == STATUS["url"]


@pytest.mark.parametrize("resource", ["mep", "ml", "modelendpoint", "modelendpoints"])
def test_the_short_name_and_the_category_find_it(kubectl, sentiment, resource):
    assert kubectl("get", resource, "--output=name").split() == [
        "modelendpoint.serving.modelendpoint.dev/sentiment"
    ]


def test_explain_describes_a_field(kubectl, crd):
    assert "Hugging Face task id." in kubectl("explain", "mep.spec.model.task")
