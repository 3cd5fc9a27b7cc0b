"""Who may run here and who may reach what."""

import json

import pytest
import yaml

from hack.cluster.kubectl import Kubectl
from hack.errors import KubectlError

DASHBOARD = "http://127.0.0.1:8265/api/serve/applications/"


def test_a_pod_that_breaks_the_restricted_profile_is_refused_and_ours_run(release):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root"},
        "spec": {"containers": [{"name": "root", "image": "localhost/model-endpoints/operator:dev"}]},
    }
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        release.apply(pod)

    def phases():
        return [item["status"]["phase"] for item in release.get("pods")["items"]]

    # A worker that is taken away is Failed for a moment.
    release.wait_for("all pods run", lambda: set(phases()) == {"Running"})
    assert len(phases()) >= 3


def test_the_dashboard_wants_the_token(release):
    [head] = release.pods(node_type="head")
    code = f"""
import os, urllib.request as u, urllib.error
def ask(**headers):
    try:
        return u.urlopen(u.Request({DASHBOARD!r}, headers=headers)).status
    except urllib.error.HTTPError as error:
        return error.code
print([ask(), ask(Authorization="Bearer wrong"), ask(Authorization="Bearer " + os.environ["RAY_AUTH_TOKEN"])])
"""
    answer = release.kubectl(
        "exec", head["metadata"]["name"], "--container=ray-head", "--", "python3", "-c", code
    )
    without, wrong, right = json.loads(answer)
    assert without == 401
    assert wrong in (401, 403)
    assert right == 200


def selected(release, policy):
    """Return the names of the pods that a NetworkPolicy's selector means, asked with its own words."""
    selector = release.get("networkpolicy", policy)["spec"]["podSelector"]
    parts = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
    parts += [e["key"] for e in selector.get("matchExpressions", []) if e["operator"] == "Exists"]
    pods = release.get("pods", f"--selector={','.join(parts)}")["items"]
    return sorted(pod["metadata"]["name"] for pod in pods)


def test_the_network_policies_mean_exactly_the_pods_and_ports_that_are_there(release):
    """No policy is enforced here (hack/README.md), so what they select is held against what runs."""
    # Those of an earlier test may still be leaving.
    release.wait_for("no pod is leaving", lambda: not any(map(leaves, release.get("pods")["items"])))
    ray = sorted(pod["metadata"]["name"] for pod in release.pods())
    store = [f"{release.name}-head-store-0"]
    operators = [name for name in names(release) if name not in ray + store]
    assert selected(release, f"{release.name}-ray") == ray
    assert selected(release, f"{release.name}-head-store") == store
    assert selected(release, f"{release.name}-operator") == operators
    assert len(operators) == 2
    [head] = release.pods(node_type="head")
    containers = {container["name"]: container for container in head["spec"]["containers"]}
    open_ports = {port["containerPort"] for port in containers["ray-head"]["ports"]}
    assert {8265, 8000, 8080} <= open_ports


def leaves(pod):
    return "deletionTimestamp" in pod["metadata"]


def names(release):
    return sorted(pod["metadata"]["name"] for pod in release.get("pods")["items"])


def test_kuberay_is_among_those_that_may_reach_the_dashboard(release, cluster):
    rules = release.get("networkpolicy", f"{release.name}-ray")["spec"]["ingress"]
    [dashboard] = [rule for rule in rules if {"port": 8265, "protocol": "TCP"} in rule.get("ports", [])]
    [kuberay] = Kubectl(cluster).get("pods", "--namespace=kuberay-system")["items"]
    # The name of a namespace is also its label.
    place = {"matchLabels": {"kubernetes.io/metadata.name": kuberay["metadata"]["namespace"]}}
    labels = [
        peer["podSelector"]["matchLabels"]
        for peer in dashboard["from"]
        if peer.get("namespaceSelector") == place
    ]
    assert any(wanted.items() <= kuberay["metadata"]["labels"].items() for wanted in labels)
    assert {"port": 8000, "protocol": "TCP"} in dashboard["ports"]


def test_no_one_else_may_reach_the_dashboard(release):
    rules = release.get("networkpolicy", f"{release.name}-ray")["spec"]["ingress"]
    for rule in rules:
        if "from" not in rule:
            assert {port["port"] for port in rule["ports"]} <= {8000, 9000, 8080, 9101}, yaml.safe_dump(rule)
