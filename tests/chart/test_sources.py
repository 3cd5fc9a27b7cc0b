"""Where models may come from: the rules for the operator and the replicas, and tokens of endpoints."""

import json

import pytest
import yaml

from endpoint_operator.api.profiles import read_profiles
from endpoint_operator.cli.chart_changes import Effect, chart_changes
from hack.errors import CommandError
from hack.paths import CHART
from serve_app.access.folder import AccessFolder
from serve_app.contract import ACCESS_VARIABLE
from serve_app.loading.sources import allowed, hub
from serve_app.source_rules import RULE_PATTERN
from tests.chart.rendering import environment, of_kind, ray_pods, template

RULES = ["hf", "hf://org/", "file:///models", "pvc://team-a/public", "package://models_inside"]
ALLOW = f"--set-json=sources.allow={json.dumps(RULES)}"
TOKENS = "--set-json=hub.tokenSecrets=[\"team-a\", \"123\"]"  # fmt: skip


def data(documents, end):
    """Return the data of the ConfigMap whose name ends so."""
    maps = of_kind(documents, "ConfigMap")
    [found] = [each["data"] for each in maps if each["metadata"]["name"].endswith(end)]
    return found


def profiles(*options):
    return read_profiles(data(template(*options), "-profiles")["profiles.yaml"], "the chart")


def spec(*options):
    [service] = of_kind(template(*options), "RayService")
    return service["spec"]


def test_by_default_models_come_from_everywhere_and_with_the_token_of_the_release():
    sources = profiles().sources
    assert sources.allows("file:///etc", "")
    assert not sources.allows("hf://org/name", "team-a")
    assert "sources" not in data(template(), "-access")
    assert "sources" not in yaml.safe_load(data(template(), "-profiles")["profiles.yaml"])


def test_the_operator_reads_the_rules_and_the_names_of_the_secrets():
    sources = profiles(ALLOW, TOKENS).sources
    assert (sources.allow, sources.token_secrets) == (tuple(RULES), ("team-a", "123"))


def test_the_replicas_read_the_rules_where_they_are_mounted(tmp_path, monkeypatch):
    documents = template(ALLOW)
    files = data(documents, "-access")
    for pod in ray_pods(documents):
        [container] = pod["spec"]["containers"]
        [mount] = [each for each in container["volumeMounts"] if each["name"] == "access"]
        [volume] = [each for each in pod["spec"]["volumes"] if each["name"] == "access"]
        assert volume["configMap"]["name"].endswith("-access")
        assert mount["mountPath"] == f"{environment(container)[ACCESS_VARIABLE]}/access"
    (tmp_path / "access").mkdir()
    for name, text in files.items():
        (tmp_path / "access" / name).write_text(text)
    monkeypatch.setenv(ACCESS_VARIABLE, str(tmp_path))
    assert allowed.allowing_rules("hf://org/name") == RULES
    # The policy beside them can be read, too.
    assert AccessFolder.of_environment().policy.mode == "off"


def test_an_edited_list_replaces_no_pod_of_ray():
    assert chart_changes(spec(), spec(ALLOW)) == ()


def test_another_list_of_tokens_replaces_the_ray_cluster():
    assert {change.effect for change in chart_changes(spec(), spec(TOKENS))} == {Effect.REPLACED}


def test_each_token_is_a_file_with_the_name_of_its_secret():
    for pod in ray_pods(template(TOKENS)):
        [container] = pod["spec"]["containers"]
        [mount] = [each for each in container["volumeMounts"] if each["name"] == "hub-tokens"]
        [volume] = [each for each in pod["spec"]["volumes"] if each["name"] == "hub-tokens"]
        assert mount["mountPath"] == hub.TOKENS_FOLDER
        assert mount["readOnly"]
        assert [each["secret"] for each in volume["projected"]["sources"]] == [
            {"name": name, "optional": True, "items": [{"key": "token", "path": name}]}
            for name in ("team-a", "123")
        ]


def test_the_chart_and_the_program_mean_the_same_by_a_rule():
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"]["sources"]["properties"]["allow"]["items"]["pattern"] == RULE_PATTERN


@pytest.mark.parametrize(
    "option",
    [
        "--set-json=sources.allow=[\"s3://bucket\"]",
        "--set-json=sources.allow=[\"file:///models/../etc\"]",
        "--set-json=sources.allow=[\"hf://org\\nfile\"]",
        "--set-json=sources.allow=[\"\"]",
        "--set-json=hub.tokenSecrets=[\"Team\"]",
        "--set-json=hub.tokenSecrets=[\"a\", \"a\"]",
    ],
)  # fmt: skip
def test_what_is_no_rule_and_no_name_is_refused(option):
    with pytest.raises(CommandError, match="(?s)values don't meet.*"):
        template(option)
