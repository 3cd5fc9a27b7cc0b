"""Whom the network policies let in. None is enforced in any of our tests, so what they select is read."""

import re

import pytest
import yaml

from hack.cluster.kuberay import NAMESPACE
from hack.errors import CommandError
from hack.toolchain.catalogue import CATALOGUE
from hack.toolchain.go_modules import module_folder
from tests.chart.rendering import CUSTOMISED, SCENARIOS, of_kind, ray_pods, template

OPERATOR = {
    "app.kubernetes.io/name": "model-endpoints",
    "app.kubernetes.io/instance": "models",
    "app.kubernetes.io/component": "operator",
}


def to_the_dashboard(*options):
    """Return the peers that may reach port 8265, those that may reach every port left out."""
    [policy] = [
        policy
        for policy in of_kind(template(*options), "NetworkPolicy")
        if policy["metadata"]["name"].endswith("-ray")
    ]
    rules = [
        rule
        for rule in policy["spec"]["ingress"]
        if {"port": 8265, "protocol": "TCP"} in rule.get("ports", [])
    ]
    [rule] = rules
    return rule["from"]


def kuberay(*options):
    """Return the peer that is meant to be KubeRay's operator."""
    [peer] = [
        peer for peer in to_the_dashboard(*options) if peer != {"podSelector": {"matchLabels": OPERATOR}}
    ]
    return peer


def means(peer, labels):
    """Return whether a peer selects the pods with these labels."""
    return peer["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.fixture(scope="module")
def source():
    """The folder of KubeRay's own source."""
    program = CATALOGUE["kuberay-operator"]
    return module_folder(program.module, program.require)


def ray_labels(source):
    """Return the labels that KubeRay gives each pod of Ray, in whosever namespace; read in `labelPod`."""
    constants = dict(
        re.findall(
            r'^\s*(\w+)\s*=\s*"([^"]*)"',
            (source / "controllers/ray/utils/constant.go").read_text(),
            re.MULTILINE,
        )
    )
    text = (source / "controllers/ray/common/pod.go").read_text()
    body = text.partition("func labelPod(")[2].partition("\n}")[0]
    pairs = re.findall(r"^\t\tutils\.(\w+):\s+(.+),$", body, re.MULTILINE)
    labels = {constants[key]: constants.get(value.removeprefix("utils."), "any") for key, value in pairs}
    assert labels["app.kubernetes.io/name"] == "kuberay"
    assert "ray.io/cluster" in labels
    return labels


def test_kuberay_s_operator_may_reach_the_dashboard(source):
    manager = yaml.safe_load((source / "config/manager/manager.yaml").read_text())
    assert means(kuberay(), manager["spec"]["template"]["metadata"]["labels"])
    # What its Helm chart gives, which names the application otherwise.
    chart = {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/component": "kuberay-operator"}
    assert means(kuberay(), chart)


def test_other_people_s_pods_of_ray_may_not(source):
    assert not means(kuberay(), ray_labels(source))
    for pod in ray_pods(template()):
        assert not means(kuberay(), ray_labels(source) | pod["metadata"]["labels"])


def test_a_namespace_narrows_it():
    assert kuberay()["namespaceSelector"] == {}
    only = kuberay("--set=networkPolicy.kuberay.namespace=rays")
    assert only["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "rays"}}
    assert only["podSelector"] == kuberay()["podSelector"]


def test_the_values_of_our_cluster_name_kuberay_s_namespace_there():
    only = kuberay(f"--values={SCENARIOS[0]}")
    assert only["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}


def test_where_kuberay_is_no_pod_of_the_cluster_its_addresses_may_be_given():
    outside = {"ipBlock": {"cidr": "10.1.0.0/28"}}
    assert kuberay('--set-json=networkPolicy.kuberay.peers=[{"ipBlock": {"cidr": "10.1.0.0/28"}}]') == outside


def test_both_a_namespace_and_peers_are_refused():
    with pytest.raises(CommandError, match="networkPolicy.kuberay.namespace"):
        template(
            "--set=networkPolicy.kuberay.namespace=rays",
            '--set-json=networkPolicy.kuberay.peers=[{"ipBlock": {"cidr": "10.1.0.0/28"}}]',
        )


def egress(*options):
    """Return the rules of each policy that limits what its pods ask, by the end of the policy's name."""
    policies = of_kind(template(*options), "NetworkPolicy")
    return {
        policy["metadata"]["name"].removeprefix("models-model-endpoints-"): policy["spec"]["egress"]
        for policy in policies
        if "Egress" in policy["spec"]["policyTypes"]
    }


def test_nothing_is_said_about_what_pods_ask_unless_the_value_is_on():
    assert egress() == {}
    assert not any("egress" in policy["spec"] for policy in of_kind(template(), "NetworkPolicy"))


def ports(rule):
    return {port["port"] for port in rule.get("ports", [])}


def test_ray_asks_itself_names_and_what_is_listed():
    each_other, names, _store, listed = egress(*CUSTOMISED)["ray"]
    assert each_other.keys() == {"to"}
    assert means(each_other["to"][0], ray_pods(template())[0]["metadata"]["labels"])
    assert ports(names) == {53}
    assert listed == {
        "to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}],
        "ports": [{"port": 3128, "protocol": "TCP"}],
    }


def test_only_the_head_and_the_operator_ask_the_api_server():
    rules = egress(*CUSTOMISED)
    [of_head] = rules["ray-head"]
    assert of_head["to"] == [{"ipBlock": {"cidr": "10.96.0.1/32"}}]
    assert ports(of_head) == {443, 6443}
    dashboard, names, api_server = rules["operator"]
    assert ports(dashboard) == {8265, 8000}
    assert means(dashboard["to"][0], ray_pods(template())[0]["metadata"]["labels"])
    assert ports(names) == {53}
    assert api_server == of_head
    [anywhere] = egress("--set=networkPolicy.egress.enabled=true")["ray-head"]
    assert "to" not in anywhere
