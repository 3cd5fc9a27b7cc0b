"""The Serve config as text: read back to the byte, and entries that nobody but us has written."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_operator.api.json_text import to_json, without_half_pairs
from endpoint_operator.serveconfig.compiler import compile_entry
from endpoint_operator.serveconfig.document import own_entry, read_entries, to_document
from serve_app.contract import SCALING_POLICY_IMPORT_PATH as POLICY
from tests.harness.builders import CLUSTER, endpoint, with_value

ENTRY = compile_entry(endpoint("a"), CLUSTER)


def test_a_document_is_read_back_to_the_byte():
    entries = {"a": ENTRY}
    assert read_entries(to_document(entries)) == entries


@pytest.mark.parametrize(
    "text", ["", "applications: []", "{}", "[]", '{"applications": 1}', '{"applications": [{}]}']
)
def test_a_document_of_another_shape_has_no_entries(text):
    assert read_entries(text) == {}


def test_a_document_without_applications_is_never_made():
    with pytest.raises(ValueError, match="without applications"):
        to_document({})


def test_an_entry_of_ours_is_known_to_the_byte():
    assert own_entry(ENTRY, "a") == ENTRY


def scaled_by(function):
    """Return the deployment of an autoscaled model with a policy."""
    scaled = endpoint(model={"task": "text-generation"}, scaling={"maxReplicas": 2})
    [deployment] = json.loads(compile_entry(scaled, CLUSTER))["deployments"]
    return with_value(deployment, "autoscaling_config.policy.policy_function", function)


def with_deployment(deployment):
    return to_json({**json.loads(ENTRY), "deployments": [deployment]})


def test_an_entry_may_name_our_policy():
    assert own_entry(with_deployment(scaled_by(POLICY)), "a") == with_deployment(scaled_by(POLICY))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("import_path", "os:system"),
        ("route_prefix", "/"),
        ("name", "b"),
        ("args.name", "b"),
        ("args.trust_remote_code", True),
        ("runtime_env", {"pip": ["evil"]}),
        ("deployments", "none"),
        ("deployments", [scaled_by("os:system")]),
    ],
)
def test_an_edited_entry_is_not_ours(path, value):
    assert own_entry(json.dumps(with_value(json.loads(ENTRY), path, value)), "a") is None


def test_what_is_no_entry_is_not_ours():
    assert own_entry("[", "a") is None


SURROGATE = re.compile(r"\\ud[89a-f]")


@given(st.text(st.characters(codec=None), max_size=20))
def test_no_text_is_written_with_an_escape_that_go_s_yaml_refuses(text):
    written = to_json({"text": text})
    assert not SURROGATE.search(written.replace("\\\\", ""))
    assert json.loads(written) == {"text": without_half_pairs(text)}
    written.encode()


def test_only_characters_beyond_the_escapes_of_yaml_stand_for_themselves():
    written = to_json(["é\u2028\x7f", "\N{GRINNING FACE}", "\\ud83d"])
    assert written == '["\\u00e9\\u2028\\u007f","\N{GRINNING FACE}","\\\\ud83d"]'
