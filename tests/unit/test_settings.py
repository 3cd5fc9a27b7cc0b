"""The operator's settings: read from the environment, and documented in docs/operator.md."""

import re
from pathlib import Path

import pytest

from endpoint_operator.controller.settings import PREFIX, Settings, SettingsError

TEXT = (Path(__file__).parents[2] / "docs" / "operator.md").read_text(encoding="utf-8")

REQUIRED = {
    "OPERATOR_NAMESPACE": "models",
    "OPERATOR_RAY_SERVICE": "ray",
    "OPERATOR_PROFILES_FILE": "/etc/profiles.yaml",
}


def test_settings_come_from_the_environment():
    settings = Settings.from_environment(REQUIRED | {"OPERATOR_FAILED_SECONDS": "7.5", "OTHER": "x"})
    assert settings.failed_seconds == 7.5
    assert settings.profiles_file == Path("/etc/profiles.yaml")


def test_an_empty_variable_counts_as_none():
    settings = Settings.from_environment(REQUIRED | {"OPERATOR_HTTP_PORT": ""})
    assert settings.http_port == 8080


def test_bad_settings_are_named_all_at_once_with_what_is_allowed():
    environment = REQUIRED | {"OPERATOR_HTTP_PORT": "99999", "OPERATOR_NAMESPACE": ""}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment)
    assert "OPERATOR_NAMESPACE: is required" in str(caught.value)
    assert "OPERATOR_HTTP_PORT: got '99999'; input should be less than or equal to 65535" in str(caught.value)


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


def test_looking_less_often_than_the_probe_allows_is_refused():
    given = {**REQUIRED, "OPERATOR_RESYNC_SECONDS": "3600"}
    with pytest.raises(
        SettingsError, match=r"OPERATOR_RESYNC_SECONDS: must not be above LIVENESS_SECONDS, 900"
    ):
        Settings.from_environment(given)
