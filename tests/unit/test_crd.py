import re
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import yaml
from pydantic import Field

from endpoint_operator.api import crd
from endpoint_operator.api.status import ConditionType
from endpoint_operator.api.types import ApiModel, parse_endpoint
from serve_app.parameters import PARAMETERS
from tests.harness.builders import manifest

COMMITTED = Path(__file__).parents[2] / "charts/model-endpoints/files/modelendpoints.yaml"

DEFINITION = crd.custom_resource_definition()
VERSION = DEFINITION["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]


def schemas(schema=ROOT, path=""):
    """Yield the dotted path and the schema of everything below `schema`, itself included."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from schemas(inner, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from schemas(schema["items"], f"{path}[]")


def leaves(kind):
    """Return the path and schema of each part of spec and status that has the type `kind`."""
    return [
        (path, schema)
        for path, schema in schemas()
        if schema["type"] == kind and path.startswith(("spec", "status"))
    ]


def keywords(schema):
    """Yield each keyword that is used anywhere, names of fields left out."""
    for _, part in schemas(schema):
        yield from part


@pytest.mark.parametrize(
    "keyword",
    ["$ref", "$defs", "anyOf", "allOf", "oneOf", "not", "title", "additionalProperties", "const", "examples"],
)
def test_nothing_is_used_that_a_structural_schema_forbids(keyword):
    assert keyword not in set(keywords(ROOT))


def test_every_part_has_one_type():
    known = {"object", "array", "string", "integer", "number", "boolean"}
    assert {schema["type"] for _, schema in schemas()} == known


def test_every_text_has_a_maximum_so_that_cel_stays_within_its_budget():
    bounded = {"maxLength", "enum"}
    assert [path for path, schema in leaves("string") if not bounded & schema.keys()] == []


def test_every_list_has_a_maximum():
    assert [path for path, schema in leaves("array") if "maxItems" not in schema] == []


def test_every_object_lists_its_fields():
    assert [path for path, schema in leaves("object") if "properties" not in schema] == []
    assert not {"x-kubernetes-preserve-unknown-fields", "additionalProperties"} & set(keywords(ROOT))


def test_every_number_of_the_spec_has_both_bounds():
    numbers = [*leaves("number"), *leaves("integer")]
    unbounded = [path for path, schema in numbers if not {"minimum", "maximum"} <= schema.keys()]
    assert [path for path in unbounded if path.startswith("spec")] == []


def test_the_parameters_are_those_of_all_tasks_without_defaults():
    parameters = ROOT["properties"]["spec"]["properties"]["model"]["properties"]["parameters"]["properties"]
    assert parameters.keys() == {name for model in PARAMETERS.values() for name in model.model_fields}
    assert [name for name, schema in parameters.items() if "default" in schema] == []
    assert parameters["top_k"] == {"type": "integer", "minimum": 0, "maximum": 100_000}
    assert parameters["candidate_labels"] == {
        "type": "array",
        "maxItems": 100,
        "items": {"type": "string", "maxLength": 200},
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"type": "integer"}, {"type": "number"}),
        ({"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 6}),
        ({"type": "number", "minimum": 0}, {"type": "number"}),
    ],
)
def test_parameters_of_one_name_that_have_no_common_schema_are_refused(one, other):
    with pytest.raises(crd.UntranslatableError):
        crd._wider(one, other)


def test_a_section_that_is_left_out_gets_its_defaults():
    sections = {path for path, schema in leaves("object") if "default" in schema} - {"status"}
    names = (
        "resources",
        "scaling",
        "batching",
        "limits",
        "limits.perKey",
        "access",
        "health",
        "logging",
    )
    assert sections == {f"spec.{name}" for name in names}


def test_the_defaults_of_the_schema_are_those_of_the_models():
    spec = parse_endpoint(manifest()).spec.model_dump(by_alias=True, mode="json")
    for path, schema in schemas(ROOT["properties"]["spec"]):
        if "default" in schema:
            assert schema["default"] == reduce(getitem, path.split("."), spec), path


def test_only_the_model_is_required():
    required = {path: schema["required"] for path, schema in schemas() if "required" in schema}
    conditions = required.pop("status.conditions[]")
    assert required == {"": ["spec"], "spec": ["model"], "spec.model": ["uri", "task"]}
    assert conditions == ["type", "status", "reason", "lastTransitionTime"]


def test_a_bound_that_is_not_allowed_itself_is_marked():
    above = {path for path, schema in schemas() if schema.get("exclusiveMinimum") is True}
    assert above == {
        "spec.model.parameters.repetition_penalty",
        "spec.model.parameters.temperature",
        "spec.model.parameters.top_p",
    }
    assert all(schema["minimum"] == 0 for path, schema in schemas() if path in above)


def test_every_rule_of_the_models_is_in_the_schema():
    rules = {path: len(schema.get("x-kubernetes-validations", [])) for path, schema in schemas()}
    assert {path: count for path, count in rules.items() if count} == {
        "": 2,
        "spec": 1,
        "spec.model": 4,
        "spec.resources": 2,
        "spec.scaling": 1,
    }


def test_conditions_are_merged_by_type():
    conditions = ROOT["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_other_controllers_may_add_conditions():
    conditions = ROOT["properties"]["status"]["properties"]["conditions"]
    kind = conditions["items"]["properties"]["type"]
    assert "enum" not in kind
    assert all(
        re.search(kind["pattern"], name) for name in [*ConditionType, "example.com/Audited", "a.b_c-d"]
    )
    assert not any(
        re.search(kind["pattern"], name) for name in ("", "two words", "/Ready", "Ready.", "A/Ready")
    )
    assert conditions["maxItems"] == 32


def test_an_object_that_nobody_has_seen_has_a_generation_that_no_object_has():
    status = ROOT["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1}
    assert status["properties"]["observedGeneration"]["minimum"] == -1


def test_the_columns_read_fields_that_exist():
    columns = {column["name"]: column["jsonPath"] for column in VERSION["additionalPrinterColumns"]}
    known = {f".{path}" for path, _ in schemas()} | {".metadata.creationTimestamp"}
    plain = {path for path in columns.values() if "[?" not in path}
    assert list(columns) == ["Ready", "Reason", "Task", "Profile", "Replicas", "URL", "Error", "Age"]
    assert plain <= known
    assert set(columns.values()) - plain == {
        '.status.conditions[?(@.type=="Ready")].status',
        '.status.conditions[?(@.type=="Reconciling")].reason',
    }


def test_the_status_is_written_apart_from_the_spec():
    assert VERSION["subresources"] == {"status": {}}


def test_the_resource_has_its_names():
    assert DEFINITION["metadata"]["name"] == "modelendpoints.serving.modelendpoint.dev"
    assert DEFINITION["spec"]["scope"] == "Namespaced"
    assert DEFINITION["spec"]["names"] == {
        "kind": "ModelEndpoint",
        "listKind": "ModelEndpointList",
        "plural": "modelendpoints",
        "singular": "modelendpoint",
        "shortNames": ["mep"],
        "categories": ["ml"],
    }


class Described(ApiModel):
    """A model with a field that has no structural form."""


class WithTuple(Described):
    """Holds a tuple."""

    pair: tuple[int, str] = Field(description="Two things.")


class WithUnion(Described):
    """Holds a union."""

    either: int | str = Field(description="One of two types.")


class WithOptional(Described):
    """Holds a value that may be null."""

    perhaps: int | None = Field(default=None, description="Perhaps a number.")


class WithLists(Described):
    """Holds lists."""

    names: list[list[str]] = Field(description="Names.", max_length=3)


class WithMap(Described):
    """Holds an open map."""

    names: dict[str, str] = Field(description="Names.", max_length=3)


class WithMultiple(Described):
    """Holds a number whose rule has no place in the translation."""

    even: int = Field(multiple_of=2, description="An even number.")


@pytest.mark.parametrize("model", [WithTuple, WithUnion, WithLists, WithMap, WithMultiple])
def test_the_translator_refuses_what_it_does_not_know(model):
    with pytest.raises(crd.UntranslatableError):
        crd._object_schema(model)


def test_an_optional_value_is_a_field_that_may_be_absent():
    schema = crd._object_schema(WithOptional)
    assert schema["properties"]["perhaps"] == {"type": "integer", "description": "Perhaps a number."}
    assert "perhaps" not in schema.get("required", [])


def test_the_committed_file_is_what_the_models_say():
    assert COMMITTED.read_text(encoding="utf-8") == crd.to_yaml()


def test_the_file_says_the_same_as_the_definition():
    assert yaml.safe_load(crd.to_yaml()) == DEFINITION
