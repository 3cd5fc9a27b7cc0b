"""What the chart renders, and which values it refuses; the API server and the cluster come in other tiers."""

import itertools
import json

import pytest
import yaml

from endpoint_operator.api.profiles import parse_profiles
from endpoint_operator.api.types import GROUP, Resources
from hack.commands import run
from hack.errors import CommandError
from hack.generate import FILES
from hack.paths import CHART
from hack.toolchain.binaries import binary_path
from tests.chart.rendering import CUSTOMISED, EVERYTHING, REQUIRED, SCENARIOS, of_kind, ray_pods, template

READ = ("get", "list", "watch")


@pytest.fixture(scope="module")
def default():
    return template()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_generated_file_is_fresh(path):
    assert path.read_text(encoding="utf-8") == FILES[path](), "run 'make generate'"


@pytest.mark.parametrize(
    "options",
    [[], EVERYTHING, CUSTOMISED, *([f"--values={path}"] for path in SCENARIOS)],
    ids=["default", "all", "customised", "kind"],
)
def test_helm_finds_nothing_wrong(options):
    run(binary_path("helm"), "lint", "--strict", str(CHART), *REQUIRED, *options)
    documents = template(*options)
    names = [(d["kind"], d["metadata"]["name"]) for d in documents]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--set-json=profiles=[]", "/profiles"),
        ("--set=profiles[0].name=Large,profiles[0].cpus=1,profiles[0].memory=1Gi", "does not match pattern"),
        ("--set=profiles[0].name=a,profiles[0].cpus=1.5,profiles[0].memory=1Gi", "/profiles/0/cpus"),
        ("--set=profiles[0].name=a,profiles[0].cpus=1,profiles[0].memory=much", "/profiles/0/memory"),
        (
            "--set=profiles[0].name=a,profiles[0].cpus=1,profiles[0].memory=1Gi,profiles[0].runtimeClassName=B",
            "/profiles/0/runtimeClassName",
        ),
        ("--set=servce.type=NodePort", "additional properties 'servce' not allowed"),
        ("--set=image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("--set=service.nodePort=-1", "/service/nodePort"),
        ("--set=service.grpcPort=0", "/service/grpcPort"),
        ("--set=hub.endpoint=huggingface", "/hub/endpoint"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(option, complaint):
    with pytest.raises(CommandError, match="(?s)values don't meet.*") as refused:
        template(option)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (
            "--set=profiles[1].name=cpu,profiles[1].cpus=1,profiles[1].memory=1Gi",
            'the name "cpu" is used twice',
        ),
        (
            "--set=profiles[0].minWorkers=4,profiles[0].maxWorkers=2",
            "cpu has minWorkers 4 above maxWorkers 2",
        ),
    ],
)
def test_profiles_that_the_operator_would_refuse_are_refused(option, complaint):
    profile = "--set=profiles[0].name=cpu,profiles[0].cpus=1,profiles[0].memory=1Gi"
    with pytest.raises(CommandError, match=complaint):
        template(profile, option)


def test_the_operator_owns_the_serve_config(default):
    [service] = of_kind(default, "RayService")
    assert "serveConfigV2" not in service["spec"]


def test_the_operator_reads_the_same_profiles_as_kuberay():
    documents = template("--values", str(SCENARIOS[0]))
    [config_map] = [each for each in of_kind(documents, "ConfigMap") if "profiles.yaml" in each["data"]]
    profiles = parse_profiles(yaml.safe_load(config_map["data"]["profiles.yaml"]))
    [service] = of_kind(documents, "RayService")
    groups = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert list(profiles.by_name) == [group["groupName"] for group in groups] == ["cpu", "gpu"]
    for group, profile in zip(groups, profiles.by_name.values(), strict=True):
        assert (group["minReplicas"], group["maxReplicas"]) == (profile.min_workers, profile.max_workers)
        assert group["rayStartParams"]["num-cpus"] == f"{profile.cpus:g}"
        spec = group["template"]["spec"]
        assert spec.get("nodeSelector", {}) == profile.node_selector
        limits = spec["containers"][0]["resources"]["limits"]
        assert limits["memory"] == profile.memory
        assert int(limits.get("nvidia.com/gpu", 0)) == profile.accelerators
        asked = profiles.place(Resources(profile=profile.name, cpus=1, memory="1Gi"))
        assert group["labels"] == asked.node_labels


def test_a_runtime_class_is_on_the_workers_of_its_profile_alone():
    gpu_profile = {"name": "gpu", "cpus": 1, "memory": "1Gi", "runtimeClassName": "nvidia"}
    profiles = [{"name": "cpu", "cpus": 1, "memory": "1Gi"}, gpu_profile]
    documents = template(f"--set-json=profiles={json.dumps(profiles)}")
    head, cpu, gpu = (pod["spec"] for pod in ray_pods(documents))
    assert gpu["runtimeClassName"] == "nvidia"
    assert "runtimeClassName" not in head.keys() | cpu.keys()


def test_worker_groups_say_what_kuberay_would_write_back(default):
    """Else Helm 4 finds the list changed by another manager, and refuses the upgrade."""
    [service] = of_kind(default, "RayService")
    for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        assert group["numOfHosts"] == 1
        assert group["scaleStrategy"] == {}
    assert all(pod["metadata"]["labels"] for pod in ray_pods(default))


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("1", "1"),
        ("2000m", "2"),
        ("1500m", "1500m"),
        ("1024Mi", "1Gi"),
        ("1536Mi", "1536Mi"),
        ("2048Gi", "2Ti"),
        ("2000k", "2M"),
        ("1000000m", "1k"),
        ("4000000000", "4G"),
    ],
)
def test_quantities_are_written_as_kubernetes_writes_them_back(given, written):
    options = "--set=profiles[0].name=a,profiles[0].cpus=1,profiles[0].memory=1Gi"
    documents = template(f"{options},profiles[0].requests.cpu={given},head.resources.requests.cpu={given}")
    for pod in ray_pods(documents):
        assert pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] == written


def test_a_quantity_may_be_a_large_number_of_a_values_file(tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"head": {"resources": {"limits": {"memory": 4_000_000_001}}}}))
    head, *_ = ray_pods(template(f"--values={values}"))
    assert head["spec"]["containers"][0]["resources"]["limits"]["memory"] == "4000000001"


def test_every_container_is_restricted(default):
    [operator] = of_kind(default, "Deployment")
    [service] = of_kind(default, "RayService")
    pods = [*ray_pods(default), operator["spec"]["template"]]
    containers = list(itertools.chain.from_iterable(pod["spec"]["containers"] for pod in pods))
    containers.append(service["spec"]["rayClusterConfig"]["autoscalerOptions"])
    for container in containers:
        context = container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_operator_may_do_only_what_it_does(default):
    [role] = of_kind(default, "Role")
    allowed = {
        (group, resource, verb, *rule.get("resourceNames", []))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    reads = {(g, r, v) for g, r in ((GROUP, "modelendpoints"), ("ray.io", "rayservices")) for v in READ}
    assert allowed == reads | {
        (GROUP, "modelendpoints/status", "patch"),
        ("ray.io", "rayservices", "patch", "models-model-endpoints"),
        ("events.k8s.io", "events", "create"),
        ("events.k8s.io", "events", "list"),
        ("", "secrets", "get", "models-model-endpoints-keys"),
        ("", "configmaps", "get", "models-model-endpoints-access"),
        ("", "pods", "list"),
        ("", "pods", "patch"),
        ("coordination.k8s.io", "leases", "create"),
        ("coordination.k8s.io", "leases", "get", "models-model-endpoints-operator"),
        ("coordination.k8s.io", "leases", "update", "models-model-endpoints-operator"),
    }
    assert not of_kind(default, "ClusterRoleBinding")


def test_people_get_models_and_no_way_to_run_code(default):
    for role in of_kind(default, "ClusterRole"):
        assert {(g, r) for rule in role["rules"] for g in rule["apiGroups"] for r in rule["resources"]} == {
            (GROUP, "modelendpoints")
        }


def test_a_long_release_name_fits_kuberay():
    [service] = of_kind(template(release="a" * 53), "RayService")
    assert len(service["metadata"]["name"]) <= 47


@pytest.mark.parametrize(("keep", "expected"), [("true", "keep"), ("false", None)])
def test_the_definition_is_kept_as_the_value_says(keep, expected):
    [definition] = of_kind(template(f"--set=crds.keep={keep}"), "CustomResourceDefinition")
    assert definition["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == expected
    assert of_kind(template("--set=crds.install=false"), "CustomResourceDefinition") == []


def test_the_hubs_token_is_a_file_that_ray_finds():
    for pod in ray_pods(template("--set=hub.tokenSecret.name=hub")):
        [container] = pod["spec"]["containers"]
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        [volume] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "hub-token"]
        [item] = volume["secret"]["items"]
        assert (volume["secret"]["secretName"], item["key"]) == ("hub", "token")
        assert variables["HF_TOKEN_PATH"] == f"{mounts['hub-token']}/{item['path']}"
