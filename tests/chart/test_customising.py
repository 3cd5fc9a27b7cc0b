"""Values that open the chart: overlays, pods of one profile, identities, proxies, ways in, budgets."""

import copy
import json

import jsonschema
import pytest
import yaml

from hack.errors import CommandError
from hack.toolchain.catalogue import CATALOGUE
from hack.toolchain.go_modules import module_folder
from serve_app.contract import GRPC_PORT
from tests.chart.rendering import CUSTOMISED, environment, of_kind, operator_pod, ray_pods, template

PROFILE = {"name": "cpu", "cpus": 4, "memory": "16Gi"}


@pytest.fixture(scope="module")
def plain():
    return template()


@pytest.fixture(scope="module")
def customised():
    return template(*CUSTOMISED)


def spec(documents):
    [service] = of_kind(documents, "RayService")
    return service["spec"]


def with_profiles(*profiles):
    return template(f"--set-json=profiles={json.dumps([PROFILE | profile for profile in profiles])}")


def variables(pod):
    [container] = pod["spec"]["containers"]
    names = [variable["name"] for variable in container["env"]]
    assert len(names) == len(set(names))
    return environment(container)


def test_an_overlay_changes_what_it_names_and_nothing_else(plain):
    overlay = {"headGroupSpec": {"rayStartParams": {"num-cpus": "2"}, "headService": {"spec": {}}}}
    changed = spec(template(f"--set-json=rayCluster={json.dumps(overlay)}"))
    expected = copy.deepcopy(spec(plain))
    expected["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = "2"
    expected["rayClusterConfig"]["headGroupSpec"]["headService"] = {"spec": {}}
    assert changed == expected


def test_an_overlay_takes_falsehood_zero_and_large_numbers_as_they_are():
    overlay = {"enableInTreeAutoscaling": False, "autoscalerOptions": {"idleTimeoutSeconds": 2_000_000}}
    cluster = spec(template(f"--set-json=rayCluster={json.dumps(overlay)}"))["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is False
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] == 2_000_000
    assert isinstance(cluster["autoscalerOptions"]["idleTimeoutSeconds"], int)
    assert (
        spec(template("--set=rayService.rayClusterDeletionDelaySeconds=0"))["rayClusterDeletionDelaySeconds"]
        == 0
    )


def test_an_overlay_replaces_lists():
    port = {"name": "serve", "port": 80, "targetPort": 8000, "appProtocol": "http"}
    overlay = {"serveService": {"spec": {"ports": [port]}}}
    service = spec(template(f"--set-json=rayService={json.dumps(overlay)}"))["serveService"]
    assert service["spec"] == {"type": "ClusterIP", "ports": [port]}
    assert service["metadata"]["name"] == "models-model-endpoints-serve-svc"


def test_the_service_has_a_port_for_grpc_that_kuberay_takes_for_a_serving_port():
    options = ("--set=service.grpcPort=9", "--set=networkPolicy.enabled=true")
    documents = template(*options)
    http, grpc = spec(documents)["serveService"]["spec"]["ports"]
    assert (http["name"], grpc["port"], grpc["appProtocol"]) == ("serve", 9, "kubernetes.io/h2c")
    for pod in ray_pods(documents):
        open_ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert (open_ports["serve"], open_ports[grpc["name"]]) == (http["targetPort"], grpc["targetPort"])
    # As KubeRay's isServingPort has it.
    assert grpc["name"].startswith("serve-")
    assert grpc["targetPort"] == GRPC_PORT


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("rayService.serveConfigV2=a", "rayService cannot set serveConfigV2: the operator owns it"),
        (
            "rayService.rayClusterConfig.rayVersion=1",
            "rayService cannot set rayClusterConfig: set rayCluster",
        ),
        ("rayService.serveService.metadata.name=a", "rayService cannot set serveService.metadata.name"),
        ("rayCluster.workerGroupSpecs[0].groupName=a", "rayCluster cannot set workerGroupSpecs"),
        ("rayCluster.authOptions.mode=disabled", "rayCluster cannot set authOptions: set auth"),
    ],
)
def test_an_overlay_of_what_has_an_owner_is_refused(option, complaint):
    with pytest.raises(CommandError, match=complaint):
        template(f"--set={option}")


@pytest.mark.parametrize(
    "overlay",
    [
        {"groupName": "other"},
        {"labels": {"modelendpoint.dev/profile": "other"}},
        *({name: 2} for name in ("replicas", "minReplicas", "maxReplicas", "numOfHosts")),
        {"scaleStrategy": {"workersToDelete": []}},
    ],
    ids=lambda overlay: next(iter(overlay)),
)
def test_an_overlay_of_a_worker_group_keeps_what_kuberay_and_the_operator_need(overlay):
    with pytest.raises(CommandError, match=f"workerGroup of profile cpu cannot set {next(iter(overlay))}"):
        with_profiles({"workerGroup": overlay})


def test_a_worker_group_may_have_labels_beside_its_own():
    [group] = spec(with_profiles({"workerGroup": {"labels": {"example.com/zone": "a"}}}))["rayClusterConfig"][
        "workerGroupSpecs"
    ]
    assert group["labels"] == {"modelendpoint.dev/profile": "cpu", "example.com/zone": "a"}


def test_what_a_profile_adds_is_on_its_workers_alone(plain, customised):
    _, cpu, gaudi = ray_pods(customised)
    [_, group] = spec(customised)["rayClusterConfig"]["workerGroupSpecs"]
    assert group["rayStartParams"]["num-gpus"] == "1"
    assert group["idleTimeoutSeconds"] == 600
    assert gaudi["metadata"]["labels"]["example.com/team"] == "vision"
    assert gaudi["metadata"]["annotations"] == {"example.com/shared": "mine", "example.com/own": "yes"}
    of_gaudi = gaudi["spec"]
    assert of_gaudi["priorityClassName"] == "models"
    assert of_gaudi["terminationGracePeriodSeconds"] == 90
    assert of_gaudi["containers"][0]["resources"]["limits"]["habana.ai/gaudi"] == "1"
    assert {"name": "scratch", "emptyDir": {}} in of_gaudi["volumes"]
    assert {"name": "scratch", "mountPath": "/scratch"} in of_gaudi["containers"][0]["volumeMounts"]
    new = {"affinity", "priorityClassName", "topologySpreadConstraints"}
    assert new <= of_gaudi.keys()
    assert not new & cpu["spec"].keys()
    assert not any((new | {"serviceAccountName"}) & pod["spec"].keys() for pod in ray_pods(plain))


def test_of_two_variables_with_one_name_the_nearer_one_wins(customised):
    head, cpu, gaudi = (variables(pod) for pod in ray_pods(customised))
    assert [pod["SHARED"] for pod in (head, cpu, gaudi)] == ["all", "all", "mine"]
    assert (gaudi["OWN"], head["HEAD"]) == ("1", "1")
    assert not {"OWN", "HEAD"} & cpu.keys()


def test_lines_of_replicas_go_to_the_container_and_the_access_log_is_off_by_default(plain):
    for documents, expected in [(plain, None), (template("--set=logging.accessLog=true"), "1")]:
        for pod in ray_pods(documents):
            assert variables(pod)["MODEL_ENDPOINTS_LINES"] == "/proc/1/fd/1"
            assert variables(pod).get("MODEL_ENDPOINTS_ACCESS_LOG") == expected


def test_a_profile_may_replace_a_default_variable():
    _, worker = ray_pods(with_profiles({"env": [{"name": "HF_HOME", "value": "/elsewhere"}]}))
    assert variables(worker)["HF_HOME"] == "/elsewhere"


def test_workers_are_spread_by_their_group_unless_a_selector_is_given():
    rule = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    given = rule | {"labelSelector": {"matchLabels": {"a": "b"}}}
    _, worker = ray_pods(with_profiles({"topologySpreadConstraints": [rule, given]}))
    group = {"ray.io/group": "cpu", "ray.io/node-type": "worker"}
    assert worker["spec"]["topologySpreadConstraints"] == [
        # An upgrade has the workers of two Ray clusters for a while.
        rule | {"labelSelector": {"matchLabels": group}, "matchLabelKeys": ["ray.io/cluster"]},
        given,
    ]


def test_the_head_has_its_own_place(customised):
    head = ray_pods(customised)[0]
    assert head["spec"]["priorityClassName"] == "heads"
    assert head["spec"]["terminationGracePeriodSeconds"] == 60
    assert "example.com/steady" in json.dumps(head["spec"]["affinity"])
    assert head["metadata"]["annotations"] == {"example.com/shared": "head"}
    assert operator_pod(customised)[0]["spec"]["priorityClassName"] == "operators"


def test_an_account_of_a_cloud_is_that_of_all_pods_but_those_that_name_another(customised):
    account = "models-model-endpoints-ray"
    names = [pod["spec"]["serviceAccountName"] for pod in ray_pods(customised)]
    assert names == [account, account, "gaudi"]
    [made] = [each for each in of_kind(customised, "ServiceAccount") if each["metadata"]["name"] == account]
    assert made["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/models"}
    tokens = [pod["spec"].get("automountServiceAccountToken") for pod in ray_pods(customised)]
    assert tokens == [False, False, False]


def test_an_account_that_is_there_is_used_and_not_made():
    documents = template("--set=ray.serviceAccount.name=mine")
    assert {pod["spec"]["serviceAccountName"] for pod in ray_pods(documents)} == {"mine"}
    assert "mine" not in [each["metadata"]["name"] for each in of_kind(documents, "ServiceAccount")]


def test_a_proxy_is_never_asked_for_the_cluster_s_own_services(customised):
    for pod in ray_pods(customised):
        environment_of_pod = variables(pod)
        assert environment_of_pod["HTTPS_PROXY"] == "http://proxy.example:3128"
        direct = environment_of_pod["NO_PROXY"].split(",")
        assert {"localhost", "127.0.0.1", ".svc", ".svc.cluster.local", "10.0.0.0/8"} <= set(direct)
        # gRPC would take these for Ray's own calls.
        assert not {"http_proxy", "https_proxy"} & environment_of_pod.keys()


def test_a_ca_bundle_is_a_file_that_every_library_finds(customised):
    for pod in ray_pods(customised):
        [container] = pod["spec"]["containers"]
        [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "ca-bundle"]
        [volume] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "ca-bundle"]
        assert volume["configMap"]["name"] == "company-ca"
        [item] = volume["configMap"]["items"]
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            assert variables(pod)[name] == f"{mount['mountPath']}/{item['path']}"


def test_the_ways_in_lead_to_the_models_service():
    documents = template(*CUSTOMISED, "--set=service.port=80")
    name = spec(documents)["serveService"]["metadata"]["name"]
    [ingress], [route] = of_kind(documents, "Ingress"), of_kind(documents, "HTTPRoute")
    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": name, "port": {"number": 80}}
    assert ingress["spec"]["tls"] == [{"secretName": "models-tls", "hosts": ["models.example.com"]}]
    [rule] = route["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": name, "port": 80}]
    assert rule["timeouts"] == {"request": "60s"}


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("ingress.enabled=true", "ingress.hosts is empty"),
        ("httpRoute.enabled=true", "httpRoute.parentRefs is empty"),
        ("ingress.hosts={https://a}", "/ingress/hosts/0"),
        ("externalUrl=models.example.com", "/externalUrl"),
        ("externalUrl=https://models.example.com/", "/externalUrl"),
        ("operator.settings.externalUrl=https://a", "operator.settings.externalUrl is set by the chart"),
        ("proxy.noProxy={a b}", "/proxy/noProxy/0"),
        ("ray.serviceAccount.name=1models", "/ray/serviceAccount/name"),
    ],
)
def test_a_value_that_leads_nowhere_is_refused(option, complaint):
    with pytest.raises(CommandError, match=complaint):
        template(f"--set={option}")


def test_the_address_outside_reaches_the_operator_only_if_there_is_one(plain, customised):
    assert "OPERATOR_EXTERNAL_URL" not in environment(operator_pod(plain)[1])
    assert environment(operator_pod(customised)[1])["OPERATOR_EXTERNAL_URL"] == "https://models.example.com"


def budgets(documents):
    """Return the budgets by the ends of their names."""
    prefix = "models-model-endpoints-"
    found = of_kind(documents, "PodDisruptionBudget")
    return {each["metadata"]["name"].removeprefix(prefix): each["spec"] for each in found}


def test_a_drain_leaves_all_workers_but_one(customised):
    found = budgets(customised)
    assert found.keys() == {"operator", "workers-cpu", "workers-gaudi"}
    assert found["operator"]["maxUnavailable"] == 1
    assert (found["workers-cpu"]["minAvailable"], found["workers-gaudi"]["minAvailable"]) == (2, 1)
    for pod, group in zip(ray_pods(customised)[1:], ("cpu", "gaudi"), strict=True):
        selector = found[f"workers-{group}"]["selector"]["matchLabels"]
        # KubeRay's `labelPod` sets these two; the others are the chart's.
        set_by_kuberay = {"ray.io/node-type": "worker", "ray.io/group": group}
        assert selector.items() <= (pod["metadata"]["labels"] | set_by_kuberay).items()
        assert set_by_kuberay.items() <= selector.items()


def test_a_profile_whose_last_worker_may_go_has_no_budget(plain):
    assert budgets(plain).keys() == {"operator"}
    assert budgets(with_profiles({"minWorkers": 3, "maxWorkers": 3, "minAvailable": 0})).keys() == {
        "operator"
    }
    assert budgets(template(*CUSTOMISED, "--set=podDisruptionBudgets.enabled=false")) == {}


def definition(kind):
    """Return the only version of a resource of KubeRay that the chart uses."""
    program = CATALOGUE["kuberay-operator"]
    folder = module_folder(program.module, program.require) / "config/crd/bases"
    text = (folder / f"ray.io_{kind}.yaml").read_text()
    [version] = [each for each in yaml.safe_load(text)["spec"]["versions"] if each["name"] == "v1"]
    return version


def closed(schema):
    """Return a schema of a definition that refuses unknown fields, and takes numbers for quantities."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {}
    result = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema and "type" in schema:
        result.setdefault("additionalProperties", False)
    return result


def test_a_customised_ray_service_is_what_kuberay_takes(customised):
    schema = closed(definition("rayservices")["schema"]["openAPIV3Schema"]["properties"]["spec"])
    jsonschema.Draft7Validator(schema).validate(spec(customised))
    with pytest.raises(jsonschema.ValidationError, match="nodeSelectors"):
        jsonschema.Draft7Validator(schema).validate(spec(customised) | {"nodeSelectors": {}})


def test_a_ray_cluster_cannot_be_scaled_so_a_budget_may_not_say_max_unavailable():
    """Kubernetes would let nobody evict a worker, `getExpectedScale` of its disruption controller."""
    assert definition("rayclusters")["subresources"] == {"status": {}}
