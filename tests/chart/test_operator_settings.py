"""What of the values reaches the operator's settings, and what has to move with them."""

import pytest
import yaml

from endpoint_operator.api.profiles import read_profiles
from endpoint_operator.controller.settings import PREFIX, Settings
from hack.errors import CommandError
from tests.chart.rendering import EVERYTHING, environment, of_kind, operator_pod, ray_pods, template


def given(*options):
    """Return the operator's variables; what comes from elsewhere, its namespace, is `here`."""
    _, container = operator_pod(template(*options))
    names = [variable["name"] for variable in container["env"]]
    assert len(names) == len(set(names))
    return {name: "here" if value is None else value for name, value in environment(container).items()}


def test_settings_reach_the_operator_under_the_names_that_it_reads():
    variables = given("--set=operator.settings.failedSeconds=7")
    settings = Settings.from_environment(variables)
    assert settings.failed_seconds == 7
    assert settings.ray_service == "models-model-endpoints"
    assert settings.lease == "models-model-endpoints-operator"
    assert settings.serve_api_url == "http://models-model-endpoints-head-svc:8265"
    assert settings.usage_url == "http://models-model-endpoints-head-svc:8000"
    assert variables.keys() <= {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("number", [1_000_000, 2_500_000_000, 7])
def test_a_large_number_is_written_as_an_integer(number, tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"operator": {"settings": {"serveConfigLimitBytes": number}}}))
    assert given(f"--values={values}")["OPERATOR_SERVE_CONFIG_LIMIT_BYTES"] == str(number)


def test_a_part_of_a_second_stays_one():
    assert given("--set-json=operator.settings.debounceSeconds=0.25")["OPERATOR_DEBOUNCE_SECONDS"] == "0.25"


def test_the_port_of_the_operator_moves_all_that_speaks_to_it():
    documents = template(*EVERYTHING, "--set=operator.settings.httpPort=9090")
    _, container = operator_pod(documents)
    assert environment(container)["OPERATOR_HTTP_PORT"] == "9090"
    assert container["ports"] == [{"name": "http", "containerPort": 9090}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"
    [service] = [each for each in of_kind(documents, "Service") if "operator" in each["metadata"]["name"]]
    assert service["spec"]["ports"] == [{"name": "http", "port": 9090, "targetPort": "http"}]
    [monitor] = of_kind(documents, "ServiceMonitor")
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["http"]
    [policy] = [
        policy
        for policy in of_kind(documents, "NetworkPolicy")
        if policy["metadata"]["name"].endswith("-operator")
    ]
    [rule] = policy["spec"]["ingress"]
    assert rule["ports"] == [{"port": 9090, "protocol": "TCP"}]


@pytest.mark.parametrize("port", ["0", "70000", "http"])
def test_a_port_that_nobody_could_find_is_refused(port):
    with pytest.raises(CommandError, match="/operator/settings/httpPort"):
        template(f"--set=operator.settings.httpPort={port}")


@pytest.mark.parametrize(
    "setting",
    [
        *("namespace", "rayService", "profilesFile", "lease", "servicePort"),
        *("serveApiUrl", "serveApiTokenFile", "usageUrl"),
    ],
)
def test_a_setting_that_the_chart_makes_is_refused(setting):
    with pytest.raises(CommandError, match=f"operator.settings.{setting} is set by the chart"):
        template(f"--set-string=operator.settings.{setting}=1")


@pytest.mark.parametrize("setting", ["failedseconds_", "httpPORT", "HttpPort", "http-port"])
def test_a_setting_has_one_spelling(setting):
    with pytest.raises(CommandError, match=f"'{setting}' does not match pattern"):
        template(f"--set=operator.settings.{setting}=1")


@pytest.mark.parametrize("port", [8000, 80])
def test_the_port_of_the_models_service_reaches_the_operator_for_their_urls(port):
    assert given(f"--set=service.port={port}")["OPERATOR_SERVICE_PORT"] == str(port)


def test_changed_profiles_reach_the_operator_at_once():
    """The kubelet takes a minute or more to show a changed ConfigMap in a pod that is there."""
    one = "--set=profiles[0].name=cpu,profiles[0].cpus=4,profiles[0].memory=16Gi"
    before, _ = operator_pod(template(one))
    after, _ = operator_pod(template(f"{one},profiles[0].maxWorkers=9"))
    assert before["metadata"]["annotations"] != after["metadata"]["annotations"]
    assert before == operator_pod(template(one, "--set=service.type=NodePort"))[0]


def test_without_a_token_nobody_is_asked_what_models_have_used():
    assert "OPERATOR_USAGE_URL" not in given("--set=auth.enabled=false")


def test_a_price_reaches_the_operator_and_no_pod_of_ray():
    one = "--set=profiles[0].name=cpu,profiles[0].cpus=4,profiles[0].memory=16Gi"
    before, after = template(one), template(one, "--set-json=profiles[0].price=0.25")
    assert ray_pods(before) == ray_pods(after)
    assert of_kind(before, "RayService") == of_kind(after, "RayService")
    [profiles] = [
        read_profiles(each["data"]["profiles.yaml"], "the ConfigMap")
        for each in of_kind(after, "ConfigMap")
        if each["metadata"]["name"].endswith("-profiles")
    ]
    assert profiles.by_name["cpu"].price == 0.25


@pytest.mark.parametrize("price", ["-1", '"0.25"', "1000001"])
def test_a_price_is_a_number_that_is_not_negative(price):
    with pytest.raises(CommandError, match="/profiles/0/price"):
        template(f"--set-json=profiles[0].price={price}")


def deployment(*options):
    [found] = of_kind(template(*options), "Deployment")
    return found["spec"]


def test_two_operators_are_kept_apart_and_replaced_one_after_the_other():
    spec = deployment()
    assert (spec["replicas"], spec["strategy"]) == (2, {"type": "RollingUpdate"})
    [spread] = spec["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == spec["selector"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert deployment("--set=operator.replicas=1")["replicas"] == 1


def test_the_lease_that_the_operator_takes_is_the_one_that_it_may_take():
    documents = template("--set=operator.settings.leaseSeconds=30")
    _, container = operator_pod(documents)
    variables = environment(container)
    assert variables["OPERATOR_LEASE_SECONDS"] == "30"
    [role] = of_kind(documents, "Role")
    named = [rule.get("resourceNames") for rule in role["rules"] if rule["resources"] == ["leases"]]
    assert named == [None, [variables["OPERATOR_LEASE"]]]
