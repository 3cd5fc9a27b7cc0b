"""The operator is tested with the rights that the chart gives it, and with no others."""

import re
from pathlib import Path

import yaml

from tests.harness.access import KEYS_OF, RULES

TEMPLATE = Path(__file__).parents[2] / "charts/model-endpoints/templates/operator-rbac.yaml"


def test_the_account_has_the_rights_that_the_chart_gives():
    [rules] = re.findall(r"^rules:\n((?:  .*\n)+)", TEMPLATE.read_text(encoding="utf-8"), re.MULTILINE)
    rules = rules.replace('{{ include "model-endpoints.keysSecret" . }}', KEYS_OF.format("ray"))
    assert yaml.safe_load(rules.replace("{{ $name }}", "ray")) == RULES
