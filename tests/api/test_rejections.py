"""What the API server refuses by itself: each rule, each bound, and names that cannot be served."""

import json

import pytest
from pydantic import ValidationError

from endpoint_operator.api import types
from endpoint_operator.api.crd import custom_resource_definition
from endpoint_operator.api.types import ApiModel, parse_endpoint
from serve_app.parameters import PARAMETERS
from tests.harness.builders import with_value
from tests.harness.documents import document
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
    "tokenSecret applies": [document(model={"uri": "file:///a", "tokenSecret": "team-a"})],
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
        # A task takes some of the parameters, within bounds of its own.
        if bound in schema and "parameters" not in path:
            just_above = 0.001 if bound == "minimum" and schema.get("exclusiveMinimum") else 0
            sent = with_value(sent, path, schema[bound] + just_above)
    assert create(sent).status_code == 201
    parse_endpoint(sent)


def at_the_bounds(schema):
    """Yield the values of a parameter that are at a bound of its JSON Schema, or one value of each type."""
    schema, *_ = [*schema.get("anyOf", []), schema]
    above = [schema["exclusiveMinimum"] + 0.001] if "exclusiveMinimum" in schema else []
    numbers = [schema[bound] for bound in ("minimum", "maximum") if bound in schema]
    longest = LONGEST.get(schema["type"])
    if isinstance(longest, str):
        longest = longest[: schema.get("maxLength")]
    elif isinstance(longest, list):
        longest = longest[: schema.get("maxItems")]
    yield from [*above, *numbers, *schema.get("enum", [])] or [longest]


LONGEST = {
    "boolean": True,
    "string": "{}" + "\N{SLIGHTLY SMILING FACE}" * 498,
    "array": ["\N{SLIGHTLY SMILING FACE}" * 200] * 100,
}

AT_THE_BOUNDS = [
    pytest.param(task, name, value, id=f"{task}-{name}-{number}")
    for task, model in PARAMETERS.items()
    for name, schema in model.model_json_schema()["properties"].items()
    for number, value in enumerate(at_the_bounds(schema))
]


@pytest.mark.parametrize(("task", "name", "value"), AT_THE_BOUNDS)
def test_a_parameter_that_its_task_takes_is_taken(create, task, name, value):
    sent = document(model={"task": str(task), "parameters": {name: value}})
    parse_endpoint(sent)
    assert create(sent).status_code == 201


def nested(depth):
    """Return a list of one list of one list…, as text, because Python's json would not write it."""
    return "[" * depth + "]" * depth


@pytest.fixture
def send(http, crd):
    """Return a function that asks for a verdict on parameters that are given as text."""

    def ask(parameters, field_validation="Strict"):
        text = json.dumps(document(model={"parameters": "HERE"})).replace('"HERE"', parameters)
        options = {"dryRun": "All", "fieldValidation": field_validation}
        return http.post(PATH, params=options, content=text, headers={"content-type": "application/json"})

    return ask


@pytest.mark.parametrize("field_validation", ["Strict", "Warn", "Ignore"])
@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("candidate_labels", json.dumps(["a" * 140_000]), "[0]: Too long"),
        ("candidate_labels", nested(1_500), "[0]: Invalid value"),
        ("top_k", nested(1_500), ": Invalid value"),
        ("do_sample", '"yes"', ": Invalid value"),
    ],
    ids=["long", "nested list", "nested", "wrong type"],
)
def test_a_parameter_without_a_bound_is_refused(send, name, value, complaint, field_validation):
    answer = send(f'{{"{name}": {value}}}', field_validation)
    assert answer.status_code == 422
    assert f"spec.model.parameters.{name}{complaint}" in answer.json()["message"]


UNKNOWN = f'{{"top_k": 3, "unheard_of": {nested(1_500)}}}'


def test_an_unknown_parameter_is_refused_by_strict_validation(send):
    answer = send(UNKNOWN)
    assert answer.status_code == 400
    assert 'unknown field "spec.model.parameters.unheard_of"' in answer.json()["message"]


@pytest.mark.parametrize(("field_validation", "warns"), [("Warn", True), ("Ignore", False)])
def test_an_unknown_parameter_is_dropped_without_strict_validation(send, field_validation, warns):
    answer = send(UNKNOWN, field_validation)
    assert answer.status_code == 201
    assert answer.json()["spec"]["model"]["parameters"] == {"top_k": 3}
    assert ("spec.model.parameters.unheard_of" in answer.headers.get("warning", "")) == warns


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
