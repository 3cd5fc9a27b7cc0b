"""docs/operator.md has every setting of the operator, with its default, and no other."""

import re
from pathlib import Path

from endpoint_operator.controller.settings import PREFIX, Settings

TEXT = (Path(__file__).parents[2] / "docs" / "operator.md").read_text(encoding="utf-8")


def shown(default):
    if default is None:
        return "none"
    return f"{default:g}" if isinstance(default, float) else str(default) or "empty"


def test_the_table_of_settings_is_that_of_the_code():
    rows = dict(re.findall(rf"^\| `{PREFIX}(\w+)` \| (\S+) \|", TEXT, re.MULTILINE))
    assert rows == {
        name.upper(): "required" if field.is_required() else shown(field.default)
        for name, field in Settings.model_fields.items()
    }
