"""Generate the CustomResourceDefinition from the API models; `make generate` writes it into the chart.

The translation from JSON Schema to a structural schema rejects keywords that it does not know. A new kind of
field can therefore not get into the CRD with half of its rules. No part of the schema is open: the API server
stores nothing whose size or depth has no bound.
Rules of structural schemas: kubernetes.io, "Extend the Kubernetes API with CustomResourceDefinitions".
"""

from collections.abc import Callable
from types import UnionType
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel

from endpoint_operator.api.status import UNSEEN, Condition, ModelEndpointStatus
from endpoint_operator.api.types import (
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    ApiModel,
    ModelEndpoint,
    ModelEndpointSpec,
)
from serve_app.contract import ParameterValue
from serve_app.parameters import PARAMETERS

Schema = dict[str, Any]

_COPIED: Final = frozenset(
    {"type", "description", "enum", "pattern", "format", "default"}
    | {"minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "required"}
)
_DROPPED: Final = frozenset({"title", "additionalProperties", "$defs", "items"})
# Of two tasks with a parameter of the same name, the wider bound holds, and the values of both.
_WIDER: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "minimum": min,
    "maximum": max,
    "enum": lambda one, other: sorted({*one, *other}),
}
# The API server merges conditions by type. Other controllers may add theirs, so the type is any that
# metav1.Condition allows, and there is room.
_CONDITIONS: Final = {
    "maxItems": 32,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
}

COLUMNS: Final[tuple[Schema, ...]] = (
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    # A suspended endpoint has no condition Ready, and the reason is the same in this one.
    {"name": "Reason", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Reconciling")].reason'},
    {"name": "Task", "type": "string", "jsonPath": ".spec.model.task"},
    {"name": "Profile", "type": "string", "jsonPath": ".spec.resources.profile"},
    {"name": "Replicas", "type": "integer", "jsonPath": ".status.readyReplicas"},
    {"name": "URL", "type": "string", "jsonPath": ".status.url", "priority": 1},
    {"name": "Error", "type": "string", "jsonPath": ".status.lastError", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


class UntranslatableError(Exception):
    """The models use a feature of JSON Schema that cannot be translated."""


def custom_resource_definition() -> Schema:
    """Return the CRD of ModelEndpoint as a plain dictionary."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["mep"],
                "categories": ["ml"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(COLUMNS),
                    "schema": {"openAPIV3Schema": _root_schema()},
                }
            ],
        },
    }


def _root_schema() -> Schema:
    return {
        "type": "object",
        "description": "One model to serve.",
        "required": ["spec"],
        "properties": {
            # The API server owns these three; a structural schema must not constrain them further.
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _object_schema(ModelEndpointSpec),
            # Without a status, kstatus would call an object that the operator has not seen yet current.
            "status": {**_object_schema(ModelEndpointStatus), "default": {"observedGeneration": UNSEEN}},
        },
        **_validations(ModelEndpoint),
    }


def _object_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of one model, with its rules."""
    schema = model.model_json_schema(by_alias=True, ref_template="{model}")
    properties = {}
    for name, field in model.model_fields.items():
        alias = field.alias or name
        nested = _nested_model(field.annotation)
        if field.annotation == dict[str, ParameterValue]:
            properties[alias] = {"type": "object", "description": field.description, **_parameters()}
        elif nested is None:
            properties[alias] = _leaf_schema(schema["properties"][alias], schema.get("$defs", {}))
        else:
            properties[alias] = _object_schema(nested)
            if not field.is_required() and field.default is not None:
                # The API server fills the defaults of an object only if the object is there. It holds
                # the default itself against the rules as it is written, so `{}` would not do.
                inside = properties[alias]["properties"]
                properties[alias]["default"] = {name: leaf["default"] for name, leaf in inside.items()}
    translated: Schema = {"type": "object", "description": " ".join(schema["description"].split())}
    if schema.get("required"):
        translated["required"] = schema["required"]
    return translated | {"properties": properties} | _validations(model)


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    # None stands for a part that may be absent.
    if isinstance(annotation, UnionType):
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _validations(model: type[BaseModel]) -> Schema:
    if not issubclass(model, ApiModel) or not model.RULES:
        return {}
    return {"x-kubernetes-validations": [{"rule": rule.cel, "message": rule.message} for rule in model.RULES]}


def _parameters() -> Schema:
    """Return the properties of every task's parameters, without defaults: each task has its own."""
    properties: Schema = {}
    for model in PARAMETERS.values():
        schema = model.model_json_schema()
        for name, described in schema["properties"].items():
            leaf = _leaf_schema(described, {})
            leaf.pop("default", None)
            properties[name] = _wider(leaf, properties.get(name, leaf))
    return {"properties": dict(sorted(properties.items()))}


def _wider(one: Schema, other: Schema) -> Schema:
    """Return the schema of what either of the two takes."""
    wider = {key: pick(one[key], other[key]) for key, pick in _WIDER.items() if key in one and key in other}
    if one | wider != other | wider:
        raise UntranslatableError(f"{one} and {other} have no structural form in common")
    return one | wider


def _leaf_schema(schema: Schema, definitions: Schema) -> Schema:
    """Translate the schema of a scalar or a list."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"]] | {k: v for k, v in schema.items() if k != "$ref"}
    if schema.get("default", "") is None:
        schema = _without_null(schema)
    if schema.get("type") == "object":
        raise UntranslatableError(f"{schema} is open")
    if schema.get("type") == "array":
        return _list(schema)
    return _scalar(schema)


def _without_null(schema: Schema) -> Schema:
    """Remove the null by which Python marks a field that may be absent."""
    kinds: list[Schema] = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1:
        raise UntranslatableError(f"{schema} has no structural form")
    return kinds[0] | {k: v for k, v in schema.items() if k not in ("anyOf", "default")}


def _scalar(schema: Schema) -> Schema:
    if "type" not in schema:
        raise UntranslatableError(f"{schema} has no single type")
    unknown = schema.keys() - _COPIED - _DROPPED - {"exclusiveMinimum"}
    if unknown:
        raise UntranslatableError(f"{sorted(unknown)} in {schema} have no structural form")
    translated = {keyword: value for keyword, value in schema.items() if keyword in _COPIED}
    if "exclusiveMinimum" in schema:
        translated |= {"minimum": schema["exclusiveMinimum"], "exclusiveMinimum": True}
    return translated


def _list(schema: Schema) -> Schema:
    """Translate the schema of a list of conditions or of scalars."""
    if schema.get("items") == {"$ref": Condition.__name__}:
        condition = _object_schema(Condition)
        return {**_scalar(schema), "items": condition, **_CONDITIONS}
    items = _scalar(schema.get("items", {}))
    if items["type"] == "array":
        raise UntranslatableError(f"{schema} is a list of lists")
    return {**_scalar(schema), "items": items}


def to_yaml() -> str:
    """Return the text of the file that `make generate` writes into the chart."""
    body = yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=110)
    return f"# Generated by `make generate` from endpoint_operator/api/types.py; do not edit.\n{body}"
