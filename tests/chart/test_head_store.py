"""Where Ray's head keeps its state, who may reach that, and how long pods get to end."""

import json

import pytest
from ray._private import ray_constants

from hack.errors import CommandError
from tests.chart.rendering import environment, of_kind, ray_pods, template

PATIENT = {"name": "cpu", "cpus": 1, "memory": "1Gi", "terminationGracePeriodSeconds": 300}
REDIS = "--set=head.faultTolerance.store=redis,head.faultTolerance.redis.address="


def service(*options):
    [found] = of_kind(template(*options), "RayService")
    return found


def cluster(*options):
    return service(*options)["spec"]["rayClusterConfig"]


def store(*options):
    """Return the StatefulSet of the chart's own store; None without one."""
    found = of_kind(template(*options), "StatefulSet")
    return found[0] if found else None


def test_the_head_keeps_its_state_in_a_store_of_the_release_with_a_password_and_a_volume():
    options = cluster()["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "models-model-endpoints-head-store:6379"
    password = {"secretKeyRef": {"name": "ray-auth", "key": "auth_token"}}
    assert options["redisPassword"] == {"valueFrom": password}
    spec = store()["spec"]
    [container] = spec["template"]["spec"]["containers"]
    assert container["image"] == "docker.io/valkey/valkey:8.1"
    assert container["command"][2].endswith('--requirepass "$(cat /var/run/secrets/ray/auth_token)"')
    [token] = spec["template"]["spec"]["volumes"]
    assert token["secret"] == {"secretName": "ray-auth"}
    # Ray hears of a write when it is on the disk.
    assert container["args"][container["args"].index("--appendfsync") + 1] == "always"
    [claim] = spec["volumeClaimTemplates"]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }


def test_the_store_s_pod_does_not_change_with_the_chart_s_version():
    labels = store()["spec"]["template"]["metadata"]["labels"]
    assert not [label for label in labels if "version" in label or "chart" in label]


def test_without_tokens_the_store_has_no_password():
    options = ["--set=auth.enabled=false"]
    assert "redisPassword" not in cluster(*options)["gcsFaultToleranceOptions"]
    [container] = store(*options)["spec"]["template"]["spec"]["containers"]
    assert container["command"][2].endswith('"$@" --protected-mode no')


def test_a_store_of_yours_takes_the_place_of_the_chart_s():
    options = [
        f"{REDIS}rediss://redis.example.com:6380,head.faultTolerance.redis.username=ray",
        "--set=head.faultTolerance.redis.passwordSecret.name=redis,caBundle.configMap=ca",
    ]
    assert store(*options) is None
    found = cluster(*options)
    assert found["gcsFaultToleranceOptions"] == {
        "redisAddress": "rediss://redis.example.com:6380",
        "redisUsername": {"value": "ray"},
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}},
    }
    [head] = found["headGroupSpec"]["template"]["spec"]["containers"]
    assert environment(head)["RAY_REDIS_CA_CERT"] == "/etc/model-endpoints/ca/ca.crt"
    [worker] = found["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert "RAY_REDIS_CA_CERT" not in environment(worker)


@pytest.mark.parametrize("address", ["", "redis.example.com", "https://redis.example.com:1"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(CommandError, match=r"redis.address is empty|/head/faultTolerance/redis/address"):
        template(f"{REDIS}{address}")


def test_without_a_store_there_is_none():
    options = ["--set=head.faultTolerance.store=none"]
    assert store(*options) is None
    assert "gcsFaultToleranceOptions" not in cluster(*options)
    assert "annotations" not in service(*options)["metadata"]


def test_kuberay_does_not_wait_for_a_store_that_goes_with_the_release():
    assert service()["metadata"]["annotations"] == {"ray.io/gcs-ft-deletion-timeout": "60"}


def policy(suffix, *options):
    [found] = [
        each
        for each in of_kind(template(*options), "NetworkPolicy")
        if each["metadata"]["name"] == f"models-model-endpoints-{suffix}"
    ]
    return found["spec"]


def test_only_the_head_and_kuberay_s_clean_up_reach_the_store():
    [rule] = policy("head-store")["ingress"]
    assert rule["ports"] == [{"port": 6379, "protocol": "TCP"}]
    [peer] = rule["from"]
    assert peer["podSelector"]["matchExpressions"] == [
        {"key": "ray.io/node-type", "operator": "NotIn", "values": ["worker"]}
    ]
    selected = policy("head-store")["podSelector"]["matchLabels"]
    assert selected.items() <= store()["spec"]["template"]["metadata"]["labels"].items()


def test_the_head_may_reach_the_store_where_egress_is_limited():
    egress = policy("ray", "--set=networkPolicy.egress.enabled=true")["egress"]
    labels = store()["spec"]["template"]["metadata"]["labels"]
    to_store = [
        rule
        for rule in egress
        for peer in rule.get("to", [])
        if rule.get("ports") == [{"port": 6379, "protocol": "TCP"}]
        and peer["podSelector"]["matchLabels"].items() <= labels.items()
    ]
    assert len(to_store) == 1


@pytest.mark.parametrize(("cpus", "excluded"), [(0, True), (2, None)])
def test_requests_go_through_the_head_only_if_models_run_there(cpus, excluded):
    assert service(f"--set=head.cpus={cpus}")["spec"].get("excludeHeadPodFromServeSvc") is excluded


def test_the_api_token_is_the_autoscaler_s_alone():
    config = cluster()
    pod = config["headGroupSpec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    [volume] = [each["name"] for each in pod["volumes"] if "projected" in each]
    [head] = pod["containers"]
    assert volume not in [mount["name"] for mount in head["volumeMounts"]]
    assert volume in [mount["name"] for mount in config["autoscalerOptions"]["volumeMounts"]]
    for group in config["workerGroupSpecs"]:
        worker = group["template"]["spec"]
        assert worker["automountServiceAccountToken"] is False
        assert not [each for each in worker["volumes"] if "projected" in each]


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ([], 300),
        (["--set=drain.seconds=600"], 600),
        (["--set=drain.seconds=600", f"--set-json=profiles={json.dumps([PATIENT])}"], 300),
    ],
)
def test_a_worker_is_drained_within_the_time_that_its_pod_has(options, seconds):
    pod = cluster(*options)["workerGroupSpecs"][0]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == seconds
    command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["model-endpoints-drain", str(seconds - 5)]


def test_a_worker_leaves_the_service_only_when_its_proxy_is_refused_or_late_several_times():
    """KubeRay has a probe of its own where there is none, and takes a worker out after one late answer."""
    config = cluster()
    for group in config["workerGroupSpecs"]:
        [container] = group["template"]["spec"]["containers"]
        probe = container["readinessProbe"]
        assert probe["httpGet"] == {"path": "/-/healthz", "port": 8000}
        assert (probe["periodSeconds"], probe["timeoutSeconds"], probe["failureThreshold"]) == (2, 5, 3)
    [head] = config["headGroupSpec"]["template"]["spec"]["containers"]
    assert "readinessProbe" not in head


def test_ray_drains_a_head_that_is_asked_to_end_and_no_worker_once_more():
    """Ray's own draining takes up to half a minute of a pod that the preStop hook has emptied."""
    variable = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert hasattr(ray_constants, variable)
    head, *workers = (environment(pod["spec"]["containers"][0]) for pod in ray_pods(template()))
    assert variable not in head
    assert [worker[variable] for worker in workers] == ["0"] * len(workers)
    assert workers
