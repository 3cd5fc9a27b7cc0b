"""Each rule's CEL form against its Python form, over the same objects."""

import celpy
import pytest
from celpy import celtypes
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint_operator.api.crd import custom_resource_definition
from endpoint_operator.api.types import (
    Batching,
    Limits,
    Metadata,
    ModelEndpoint,
    ModelEndpointSpec,
    ModelSource,
    Resources,
    Scaling,
)
from serve_app.contract import Task
from tests.unit.test_rules import BAD_NAMES, BAD_URIS, GOOD_NAMES, GOOD_URIS

ROOT = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = ROOT["properties"]["spec"]


def kubernetes_value(value, schema):
    """Return the CEL value that the API server binds for `value` of `schema`.

    JSON does not tell 1 from 1.0, so the API server goes by the schema: a field of type number is
    a double. celpy goes by the Python value, and would compare an int with a double and fail.
    """
    if schema.get("type") == "number":
        return celtypes.DoubleType(value)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return celtypes.MapType(
            {
                celtypes.StringType(name): kubernetes_value(inner, properties.get(name, {}))
                for name, inner in value.items()
            }
        )
    return celpy.json_to_cel(value)


def holds_in_cel(program, model, schema):
    self_value = kubernetes_value(model.model_dump(by_alias=True, mode="json"), schema)
    return bool(program.evaluate({"self": self_value}))


def compiled(rule):
    environment = celpy.Environment()
    return environment.program(environment.compile(rule.cel))


def unchecked(model, **strategies):
    """Build a `model` without its checks, so that rules meet objects that break them."""
    return st.fixed_dictionaries({}, optional=strategies).map(lambda values: model.model_construct(**values))


text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
segments = st.lists(
    st.sampled_from(["a", "B-1", ".", "..", "...", ".a", "a..", "ü", " ", "\n", ""]), max_size=4
)
schemes = st.sampled_from(["hf://", "file:///", "file://", "pvc://", "package://", "http://", ""])
uris = st.one_of(
    text,
    st.sampled_from(GOOD_URIS + BAD_URIS),
    st.builds(lambda scheme, parts: scheme + "/".join(parts), schemes, segments),
)
names = st.one_of(
    text, st.sampled_from([*GOOD_NAMES, *BAD_NAMES, "gateway"]), st.from_regex(r"[-a-z0-9]{1,42}")
)
memories = st.one_of(text, st.from_regex(r"[0-9]{0,11}(Ki|Mi|Gi|Ti|k|M|G|T|B| )?\n?"))
counts = st.one_of(
    st.integers(1, 16), st.floats(0, 16, exclude_min=True), st.integers(1, 64).map(lambda n: n / 4)
)
small = st.integers(0, 4)

OBJECTS = {
    ModelSource: (
        SPEC["properties"]["model"],
        st.builds(
            lambda uri, revision, secret: ModelSource.model_construct(
                uri=uri, revision=revision, token_secret=secret, task=Task.FILL_MASK
            ),
            uris,
            st.sampled_from(["", "main"]),
            st.sampled_from(["", "team-a"]),
        ),
    ),
    Resources: (SPEC["properties"]["resources"], unchecked(Resources, count=counts, memory=memories)),
    Scaling: (SPEC["properties"]["scaling"], unchecked(Scaling, min_replicas=small, max_replicas=small)),
    ModelEndpointSpec: (
        SPEC,
        st.builds(
            lambda batching, limits: ModelEndpointSpec.model_construct(
                model=ModelSource(uri="hf://a/b", task=Task.FILL_MASK), batching=batching, limits=limits
            ),
            unchecked(Batching, max_batch_size=st.integers(1, 70)),
            unchecked(Limits, max_ongoing_requests=st.integers(1, 70)),
        ),
    ),
    ModelEndpoint: (
        ROOT,
        names.map(lambda name: ModelEndpoint.model_construct(metadata=Metadata.model_construct(name=name))),
    ),
}

# Compiled here because the parser raises the recursion limit, which hypothesis complains about.
RULES = [(model, rule, compiled(rule)) for model in OBJECTS for rule in model.RULES]


def test_every_rule_is_held_against_its_python_form():
    written = str(ROOT).count("'rule':")
    assert len(RULES) == written


@pytest.mark.parametrize(("model", "rule", "program"), RULES, ids=lambda part: getattr(part, "message", None))
@settings(max_examples=150)
@given(data=st.data())
def test_a_rule_says_the_same_in_cel_and_in_python(model, rule, program, data):
    schema, objects = OBJECTS[model]
    candidate = data.draw(objects)
    assert holds_in_cel(program, candidate, schema) == rule.holds(candidate)


@pytest.mark.parametrize("count", [0.25, 0.999, 1, 1.0, 2, 16, 1.5, 15.75])
def test_a_count_means_the_same_whether_it_is_written_as_an_integer_or_not(count):
    program = next(program for _, rule, program in RULES if rule.fields == ("count",))
    resources = Resources.model_construct(count=count)
    expected = count < 1 or count == int(count)
    assert holds_in_cel(program, resources, SPEC["properties"]["resources"]) is expected
