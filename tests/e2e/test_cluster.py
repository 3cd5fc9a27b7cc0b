"""The cluster itself: its nodes, KubeRay, and what pods see."""

import yaml

from hack.cluster import kind, kuberay
from hack.cluster.simulated_gpu import GPU_LABEL, GPU_RESOURCE
from hack.cluster.volumes import TORCH
from tests.e2e.conftest import eventually

IMAGE = "localhost/model-endpoints/serve:dev"


def ready(item):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"]["conditions"])


def test_three_nodes_are_ready_and_one_has_accelerators(kubectl):
    nodes = kubectl.get("nodes")["items"]
    assert [ready(node) for node in nodes] == [True] * 3
    assert {node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes} == {kind.KUBERNETES}
    [gpu_node] = [node for node in nodes if GPU_RESOURCE in node["status"]["allocatable"]]
    assert gpu_node["metadata"]["labels"][GPU_LABEL] == "true"
    assert gpu_node["status"]["allocatable"][GPU_RESOURCE] == str(kind.ACCELERATORS)


def test_kuberay_runs_in_the_pinned_version(kubectl):
    [pod] = kubectl.get("pods", "--namespace=kuberay-system")["items"]
    assert ready(pod)
    [container] = pod["spec"]["containers"]
    assert container["image"].endswith(f":{kuberay.version()}")


def test_bringing_it_up_again_keeps_the_cluster(kubectl, cluster):
    [before] = kubectl.get("namespaces", "--field-selector=metadata.name=default")["items"]
    assert kind.up() == cluster
    [after] = kubectl.get("namespaces", "--field-selector=metadata.name=default")["items"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_a_pod_that_asks_for_an_accelerator_goes_to_a_node_that_has_one(kubectl, namespace, simulated_gpu):
    """Also that the folder with torch is there for pods, and that the image's Python can use it."""
    [plain] = [
        node["metadata"]["name"]
        for node in kubectl.get("nodes", f"--selector={GPU_LABEL}!=true")["items"]
        if not node["spec"].get("taints")
    ]
    simulated_gpu(plain, count=3)
    for count in (3, 2):
        kubectl("apply", f"--namespace={namespace}", "--filename=-", manifest=gpu_pod(count))
    where = {count: eventually(lambda count=count: finished(kubectl, namespace, count)) for count in (3, 2)}
    assert where[3] == plain
    assert "torch 2." in kubectl("logs", "gpu-3", f"--namespace={namespace}")


def gpu_pod(count):
    container = {
        "name": "torch",
        "image": IMAGE,
        "command": ["python3", "-c", "import torch; print('torch', torch.__version__)"],
        "env": [{"name": "PYTHONPATH", "value": TORCH}],
        "resources": {"limits": {GPU_RESOURCE: count}},
        "volumeMounts": [{"name": "torch", "mountPath": TORCH, "readOnly": True}],
    }
    spec = {
        "restartPolicy": "Never",
        "nodeSelector": {GPU_LABEL: "true"},
        "containers": [container],
        "volumes": [{"name": "torch", "hostPath": {"path": TORCH}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"gpu-{count}"}, "spec": spec}


def finished(kubectl, namespace, count):
    """Return the node on which the pod ran to its end; None while it has not."""
    pod = kubectl.get("pod", f"gpu-{count}", f"--namespace={namespace}")
    assert pod["status"]["phase"] != "Failed", yaml.safe_dump(pod["status"])
    return pod["spec"]["nodeName"] if pod["status"]["phase"] == "Succeeded" else None


def test_helm_reaches_the_cluster(helm):
    assert helm("list", "--all-namespaces", "--output=json").strip().startswith("[")
