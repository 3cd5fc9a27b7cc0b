"""Where the token of Ray's dashboard comes from."""

import pytest

from hack.errors import CommandError
from tests.chart.rendering import REQUIRED, of_kind, operator_pod, template, template_as_given

WITHOUT_A_SECRET = [option for option in REQUIRED if "secretName" not in option]


def test_a_rendering_that_cannot_see_the_cluster_makes_no_token():
    """Each would make another one, and lock the operator and KubeRay out of the Ray that runs."""
    with pytest.raises(CommandError) as refused:
        template_as_given(*WITHOUT_A_SECRET)
    for words in ("auth.secretName is empty", "helm template", "kubectl create secret", "docs/gitops.md"):
        assert words in str(refused.value)


def test_a_secret_of_your_own_is_used_and_not_written():
    documents = template("--set=auth.secretName=mine")
    assert of_kind(documents, "Secret") == []
    [service] = of_kind(documents, "RayService")
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token", "secretName": "mine"}
    volumes = {volume["name"]: volume for volume in operator_pod(documents)[0]["spec"]["volumes"]}
    assert volumes["ray-token"]["secret"] == {"secretName": "mine"}


def test_without_authentication_no_secret_is_wanted():
    documents = template_as_given(*WITHOUT_A_SECRET, "--set=auth.enabled=false")
    assert of_kind(documents, "Secret") == []
