"""Whole inputs against whole outputs; `pytest --update-golden` rewrites the outputs."""

from pathlib import Path

import pytest
import yaml

from endpoint_operator.api.profiles import parse_catalogue
from endpoint_operator.local.manifests import read_manifest
from endpoint_operator.serveconfig.compiler import compile_serve_config
from tests.unit.builders import MACHINE

CASES = sorted((Path(__file__).parent / "golden").iterdir())


def compiled(case):
    manifest = read_manifest(case / "endpoints.yaml")
    assert manifest.errors == ()
    profiles = case / "profiles.yaml"
    catalogue = parse_catalogue(yaml.safe_load(profiles.read_text())) if profiles.exists() else MACHINE
    return compile_serve_config([located.endpoint for located in manifest.endpoints], catalogue).document


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_set_of_endpoints_compiles_to_the_committed_bytes(case, update_golden):
    expected = case / "serve.json"
    document = compiled(case) + "\n"
    if update_golden:
        expected.write_text(document, encoding="utf-8")
    assert document.encode() == expected.read_bytes()
