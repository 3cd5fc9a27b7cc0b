"""Whole inputs against whole outputs; `pytest --update-golden` rewrites the outputs."""

from pathlib import Path

import pytest
import yaml

from endpoint_operator.api.profiles import parse_profiles
from endpoint_operator.local.manifests import read_manifest
from endpoint_operator.serveconfig.compiler import compile_serve_config
from tests.unit.builders import MACHINE

CASES = sorted((Path(__file__).parent / "golden").iterdir())


def compiled(case):
    manifest = read_manifest(case / "endpoints.yaml")
    assert manifest.errors == ()
    file = case / "profiles.yaml"
    profiles = parse_profiles(yaml.safe_load(file.read_text())) if file.exists() else MACHINE
    return compile_serve_config([located.endpoint for located in manifest.endpoints], profiles).document


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_set_of_endpoints_compiles_to_the_committed_bytes(case, update_golden):
    expected = case / "serve.json"
    document = compiled(case) + "\n"
    if update_golden:
        expected.write_text(document, encoding="utf-8")
    assert document.encode() == expected.read_bytes()
