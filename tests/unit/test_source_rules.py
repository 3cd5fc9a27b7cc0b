"""Which URIs the rules of sources.allow let in."""

import os
import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_operator.api.rules import URI_PATTERN
from serve_app.source_rules import RULE_PATTERN, SCHEMES, is_allowed, objection

SEGMENTS = st.sampled_from(["a", "b", "ab", "A", "..", ".", "", "...", "a..", "%2e%2e", "a b", "ü", "~"])
PATHS = st.lists(SEGMENTS, max_size=5).map("/".join)
URIS = st.builds(
    lambda scheme, path: f"{scheme}://{path}", st.sampled_from([*SCHEMES, "http", "File"]), PATHS
)


@pytest.mark.parametrize(
    ("rule", "uri", "allowed"),
    [
        ("hf", "hf://org/name", True),
        ("hf://", "hf://org/name", True),
        ("hf", "file:///org/name", False),
        ("file", "file:///anywhere/at/all", True),
        ("pvc", "pvc://claim/a", True),
        ("package", "package://models_inside", True),
        ("hf://org", "hf://org/name", True),
        ("hf://org/", "hf://org/name", True),
        ("hf://org", "hf://organisation/name", False),
        ("hf://org", "hf://Org/name", False),
        ("hf://org/name", "hf://org/name", True),
        ("hf://org/name", "hf://org/name-large", False),
        ("file:///models", "file:///models", True),
        ("file:///models", "file:///models/", True),
        ("file:///models/", "file:///models/a/b", True),
        ("file:///models/", "file:///models-2/a", False),
        ("file:///models/", "file:///volumes/a", False),
        ("file:///models/", "file:///models/../etc", False),
        ("file:///models/", "file:///models/./a", False),
        ("file:///models/", "file:///models//a", False),
        ("file:///models/", "file:////models/a", False),
        ("file:///models/", "file://models/a", False),
        # Nobody decodes it: it is a folder of that name.
        ("file:///models/", "file:///models/%2e%2e/a", True),
        ("file:///models/", "file:///%6dodels/a", False),
        ("pvc://team-a", "pvc://team-a/x", True),
        ("pvc://team-a", "pvc://team-ab/x", False),
        ("pvc://team-a/public/", "pvc://team-a/private/x", False),
        ("pvc://team-a", "file:///volumes/team-a/x", False),
        ("pvc://team-a", "pvc:///team-a/x", False),
        ("package://models_inside", "package://models_inside/sentiment", True),
        ("package://models_inside", "package://models_inside2", False),
        ("package://models_inside", "package://models_inside//etc", False),
        # A rule that cannot be read lets nothing in.
        ("", "hf://org/name", False),
        ("http://hub", "http://hub/x", False),
        ("hf://..", "hf://../name", False),
    ],
)
def test_a_rule_lets_in_what_begins_with_its_segments(rule, uri, allowed):
    assert is_allowed(uri, [rule]) is allowed


def test_without_rules_everything_is_let_in():
    assert is_allowed("file:///etc", [])
    assert objection("file:///etc", []) == ""


def test_one_of_several_rules_is_enough():
    rules = ["hf://org", "file:///models"]
    assert is_allowed("file:///models/a", rules)
    assert objection("hf://other/name", rules) == (
        "model.uri: hf://other/name is no allowed source; sources.allow of the chart has hf://org, file:///models"
    )


def test_a_long_list_is_cut():
    rules = [f"hf://org-{number}" for number in range(100)]
    assert objection("hf://other/name", rules).endswith("hf://org-9, …")


def lexical(uri):
    """Return the absolute path that the rest of a URI means to whoever opens it, whatever is there."""
    scheme, _, rest = uri.partition("://")
    return scheme, PurePosixPath(os.path.normpath(f"/root/{rest.lstrip('/')}"))


@st.composite
def rules_and_uris(draw):
    """Return a rule and a URI, which mostly begins like the rule."""
    rule = draw(URIS)
    return rule, draw(st.one_of(URIS, *(PATHS.map(f"{rule}{between}".__add__) for between in ("", "/"))))


@given(rules_and_uris())
def test_what_is_let_in_is_below_what_the_rule_names(pair):
    rule, uri = pair
    if is_allowed(uri, [rule]):
        (scheme, path), (of_rule, folder) = lexical(uri), lexical(rule)
        assert scheme == of_rule
        assert path.is_relative_to(folder)
        assert ".." not in uri.split("/")


@given(st.from_regex(RULE_PATTERN, fullmatch=True))
def test_each_rule_of_the_chart_lets_in_what_is_below_it_and_not_what_only_begins_so(rule):
    bare = rule.removesuffix("://")
    if bare in SCHEMES:
        assert is_allowed(f"{bare}:///x" if bare == "file" else f"{bare}://x", [rule])
        assert not is_allowed(f"x{bare}://x", [rule])
        return
    stem = rule.removesuffix("/")
    assert is_allowed(stem, [rule])
    assert is_allowed(f"{stem}/x", [rule])
    assert not is_allowed(f"{stem}x", [rule])
    assert not is_allowed(f"{stem}/../x", [rule])


@given(st.from_regex(URI_PATTERN, fullmatch=True))
def test_a_rule_may_be_any_uri_that_an_endpoint_may_have(uri):
    odd = any(part.strip(".") == "" for part in uri.removesuffix("/").partition("://")[2].split("/")[1:])
    assert is_allowed(uri, [uri]) is not odd


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "s3",
        "http://x",
        "hf://a/b/c",
        "file://models",
        "file:///",
        "file:///a//b",
        "pvc://a/../b",
        "HF",
        "hf:/a",
    ]
    + ["hf:// a", "file:///a\n", "package://.", "hf://a/..", "file:///a/.../b"],
)
def test_what_is_no_rule_is_refused_by_the_chart(rule):
    assert re.fullmatch(RULE_PATTERN, rule) is None
