"""Keys of clients in the chart: what is mounted from the first installation on, and what changes no pod."""

import json

import pytest

from hack.commands import CommandError
from tests.chart.rendering import of_kind, ray_pods, template


def policy(documents):
    [found] = [
        each for each in of_kind(documents, "ConfigMap") if each["metadata"]["name"].endswith("-access")
    ]
    return json.loads(found["data"]["access.json"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], {"keys": "off", "notAllowed": 403}),
        # A values file without quotes has a false there.
        (["access.keys=false"], {"keys": "off", "notAllowed": 403}),
        (["access.keys=required", "access.notAllowed=404"], {"keys": "required", "notAllowed": 404}),
    ],
)
def test_the_policy_is_in_a_config_map_and_changes_no_pod(values, expected):
    plain, changed = template(), template(*(f"--set={value}" for value in values))
    assert policy(changed) == expected
    assert ray_pods(changed) == ray_pods(plain)


def test_keys_are_mounted_although_there_are_none_yet():
    for pod in ray_pods(template()):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes["keys"]["secret"] == {
            "secretName": "models-model-endpoints-keys",
            "optional": True,
            "defaultMode": 0o440,
        }
        [container] = [each for each in pod["spec"]["containers"] if each["name"].startswith("ray-")]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        folder = variables["MODEL_ENDPOINTS_ACCESS"]
        assert (mounts["access"], mounts["keys"]) == (f"{folder}/access", f"{folder}/keys")


def test_the_operator_follows_the_secret_that_is_named():
    [operator] = of_kind(template("--set=access.secretName=team-keys"), "Deployment")
    [container] = operator["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert variables["OPERATOR_KEYS_SECRET"] == "team-keys"
    assert variables["OPERATOR_ACCESS_CONFIG_MAP"] == "models-model-endpoints-access"
    labels = dict(part.split("=") for part in variables["OPERATOR_POD_SELECTOR"].split(","))
    for pod in ray_pods(template()):
        assert pod["metadata"]["labels"].items() >= labels.items()


@pytest.mark.parametrize("value", ["access.keys=maybe", "access.notAllowed=401", "access.secretName=A_b"])
def test_what_is_no_value_is_refused(value):
    with pytest.raises(CommandError, match=value.partition("=")[0].replace(".", "/")):
        template(f"--set={value}")
