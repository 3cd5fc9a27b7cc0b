"""The judge that sits in every test of the operator finds each kind of breach, and no other."""

import json

import pytest

from endpoint_operator.serveconfig.compiler import compile_serve_config
from tests.harness.api_server.fault_proxy import Request
from tests.harness.history import Change
from tests.harness.invariants import OPERATOR, documents, repetitions, violations
from tests.unit.builders import CLUSTER, endpoint, manifest

GATEWAY_ALONE = compile_serve_config([], CLUSTER).document


def document(*endpoints):
    return compile_serve_config(endpoints, CLUSTER).document


class Story:
    """A history that a test writes line by line."""

    def __init__(self):
        self.changes = []

    def endpoint(self, name="a", **spec):
        self._add("ModelEndpoint", manifest(name, **spec))

    def delete(self, name="a"):
        self._add("ModelEndpoint", manifest(name), deleted=True)

    def document(self, text, manager=OPERATOR):
        fields = {"manager": manager, "fieldsV1": {"f:spec": {"f:serveConfigV2": {}}}}
        metadata = {"name": "ray", "managedFields": [fields]}
        self._add("RayService", {"metadata": metadata, "spec": {"serveConfigV2": text}})

    def violations(self, **allowed):
        return violations(self.changes, CLUSTER, **allowed)

    def _add(self, kind, stored, deleted=False):
        self.changes.append(Change(len(self.changes), kind, deleted, stored))


@pytest.fixture
def story():
    story = Story()
    story.endpoint("a")
    story.endpoint("b")
    story.document(document(endpoint("a"), endpoint("b")))
    return story


def patch(body=b"{}", path="/rayservices/ray", **fields):
    return Request("PATCH", path, {}, body, **({"passed": True, "status": 200} | fields))


def test_a_good_history_has_no_violation(story):
    story.endpoint("a", suspend=True)
    story.document(document(endpoint("b")))
    story.delete("b")
    story.document(GATEWAY_ALONE)
    assert story.violations() == []
    assert len(documents(story.changes)) == 3


@pytest.mark.parametrize(
    "text", ['{"applications": null}', document(endpoint("a")).replace('"gateway"', '"door"'), "a: ["]
)
def test_a_document_that_serve_refuses_or_that_lacks_the_gateway_is_found(text):
    story = Story()
    story.document(text)
    assert any(sentence.startswith("I1") for sentence in story.violations())


def test_an_entry_that_is_not_its_endpoints_own_is_found(story):
    story.document(document(endpoint("a", limits={"maxQueuedRequests": 7}), endpoint("b")))
    assert story.violations() == ["I2: document of version 3: a is of no version of it"]


def test_an_earlier_version_of_the_endpoint_is_its_own(story):
    story.endpoint("a", limits={"maxQueuedRequests": 7})
    story.document(document(endpoint("a", limits={"maxQueuedRequests": 7}), endpoint("b")))
    story.document(document(endpoint("a"), endpoint("b")))
    assert story.violations() == []


def test_an_application_that_leaves_before_its_endpoint_is_found(story):
    story.document(document(endpoint("b")))
    story.delete("a")
    assert story.violations() == ["I4: document of version 3: a left, and its endpoint is there"]
    assert story.violations(may_leave={"a"}) == []


def test_what_somebody_else_writes_is_not_the_operators(story):
    story.document("nonsense", manager="kubectl-edit")
    assert story.violations() == []
    assert len(documents(story.changes)) == 1


def test_writing_the_same_twice_is_found():
    assert len(repetitions([patch(), patch()], [])) == 1
    assert repetitions([patch(b"1"), patch(b"2"), patch(b"1")], []) == []
    assert repetitions([patch(path="a"), patch(path="b")], []) == []


@pytest.mark.parametrize("fields", [{"status": None}, {"status": 409}])
def test_what_was_refused_or_got_no_answer_may_be_written_again(fields):
    assert repetitions([patch(**fields), patch()], []) == []


def test_what_somebody_else_has_overwritten_may_be_written_again(story):
    story.document("nonsense", manager="kubectl-edit")
    assert repetitions([patch(), patch()], story.changes) == []
    assert len(repetitions([patch(), patch(), patch()], story.changes)) == 1


def test_another_text_of_the_same_document_is_found_unless_it_was_wanted(story):
    reordered = json.loads(document(endpoint("a"), endpoint("b")))
    reordered["applications"].reverse()
    story.document(json.dumps(reordered))
    assert story.violations() == ["I3: document of version 3 says what the one before it says"]
    assert story.violations(may_push=True) == []
