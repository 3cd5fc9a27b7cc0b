"""What the API server refuses by itself: each rule, each bound, and names that cannot be served."""

import pytest
from pydantic import ValidationError

from endpoint_operator.api import types
from endpoint_operator.api.crd import custom_resource_definition
from endpoint_operator.api.types import ApiModel, parse_endpoint
from tests.harness.documents import document
from tests.unit.builders import with_value
from tests.unit.test_rules import BAD_NAMES, BAD_URIS, GOOD_NAMES, GOOD_URIS

PATH = f"/apis/{types.GROUP}/{types.VERSION}/namespaces/default/{types.PLURAL}"

SPEC = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

RULES = [
    rule
    for model in vars(types).values()
    if isinstance(model, type) and issubclass(model, ApiModel)
    for rule in model.RULES
]

# For the beginning of each rule's message: manifests that break it.
BROKEN = {
    "uri must be hf://": [document(model={"uri": uri}) for uri in BAD_URIS],
    "uri must not contain": [
        document(model={"uri": uri}) for uri in ("file:///a/../b", "file:///..", "file:///./a", "pvc://c/d/.")
    ],
    "revision applies": [
        document(model={"uri": uri, "revision": "main"}) for uri in ("file:///a", "pvc://c/a", "package://p")
    ],
    "memory must be": [
        document(resources={"memory": memory})
        for memory in ("", "0", "0Gi", "2.5Gi", "2 Gi", "2gi", "2GiB", "-1Gi", "1e9", "2Gi\n", "lots")
    ],
    "count must be": [document(resources={"count": count}) for count in (1.5, 2.25, 15.999)],
    "minReplicas must not": [
        document(scaling={"minReplicas": 2}),
        document(scaling={"minReplicas": 5, "maxReplicas": 4}),
    ],
    "batching.maxBatchSize must not": [
        document(batching={"maxBatchSize": 65}),
        document(limits={"maxOngoingRequests": 15}),
        document(batching={"maxBatchSize": 3}, limits={"maxOngoingRequests": 2}),
    ],
    "metadata.name must be": [document("a" * 41), document("sentiment.v2"), document("a" * 253)],
    "metadata.name must not": [document("gateway")],
}

BREACHES = [
    (rule, sent)
    for rule in RULES
    for beginning, documents in BROKEN.items()
    if rule.message.startswith(beginning)
    for sent in documents
]


@pytest.fixture
def create(http, crd):
    """Return a function that asks the API server for its verdict on a manifest; nothing is stored."""

    def ask(sent):
        return http.post(PATH, params={"dryRun": "All", "fieldValidation": "Strict"}, json=sent)

    return ask


def test_there_is_a_breach_of_every_rule():
    assert {rule.message for rule, _ in BREACHES} == {rule.message for rule in RULES}
    assert len(BROKEN) == len(RULES)


@pytest.mark.parametrize(("rule", "sent"), BREACHES, ids=lambda part: getattr(part, "message", ""))
def test_a_breach_of_a_rule_is_refused_with_its_message(create, rule, sent):
    answer = create(sent)
    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
    assert rule.message in answer.json()["message"]


def leaves(schema, path):
    """Yield the dotted path and the schema of each scalar below `schema`."""
    for name, inner in schema.get("properties", {}).items():
        yield from leaves(inner, f"{path}.{name}")
    if schema["type"] != "object":
        yield path, schema


def wrong_values(schema):
    """Yield a value that breaks each keyword of a scalar's schema, under that keyword's name."""
    if "maximum" in schema:
        yield "maximum", schema["maximum"] + 1
    if "minimum" in schema:
        yield "minimum", schema["minimum"] if schema.get("exclusiveMinimum") else schema["minimum"] - 1
    if "maxLength" in schema:
        yield "maxLength", "a" * (schema["maxLength"] + 1)
    if "minLength" in schema:
        yield "minLength", ""
    if "enum" in schema:
        yield "enum", "something-else"
    if "pattern" in schema:
        yield "pattern", "a b"
    yield "type", 7 if schema["type"] == "string" else "seven"


WRONG = [
    pytest.param(path, value, id=f"{path}-{keyword}")
    for path, schema in leaves(SPEC, "spec")
    for keyword, value in wrong_values(schema)
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_value_out_of_bounds_is_refused_by_the_api_server_and_by_us(create, path, value):
    sent = with_value(document(), path, value)
    answer = create(sent)
    assert answer.status_code == 422
    assert path in answer.json()["message"]
    with pytest.raises(ValidationError):
        parse_endpoint(sent)


@pytest.mark.parametrize("bound", ["minimum", "maximum"])
def test_every_number_may_be_at_its_bound(create, bound):
    sent = document()
    for path, schema in leaves(SPEC, "spec"):
        if bound in schema:
            just_above = 0.001 if bound == "minimum" and schema.get("exclusiveMinimum") else 0
            sent = with_value(sent, path, schema[bound] + just_above)
    assert create(sent).status_code == 201
    parse_endpoint(sent)


@pytest.mark.parametrize("path", ["spec.model.uri", "spec.model.task", "spec.model", "spec"])
def test_what_is_required_cannot_be_left_out(create, path):
    sent = document()
    *parents, last = path.split(".")
    inner = sent
    for part in parents:
        inner = inner[part]
    del inner[last]
    answer = create(sent)
    assert answer.status_code == 422
    assert f"{path}: Required value" in answer.json()["message"]


@pytest.mark.parametrize("uri", GOOD_URIS)
def test_a_good_uri_is_taken(create, uri):
    assert create(document(model={"uri": uri})).status_code == 201


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_good_name_is_taken(create, name):
    assert create(document(name)).status_code == 201


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused(create, name):
    answer = create(document(name))
    assert answer.status_code == 422
    assert "metadata.name" in answer.json()["message"]


@pytest.mark.parametrize(
    "field", ["spec.replicas", "spec.model.url", "spec.scaling.minReplica", "spec.limits.timeout"]
)
def test_an_unknown_field_is_refused(create, field):
    answer = create(with_value(document(), field, 1))
    assert answer.status_code == 400
    assert f'unknown field "{field}"' in answer.json()["message"]
