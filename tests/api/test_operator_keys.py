"""The operator marks Ray's pods when the keys of clients change, and never reads a key."""

import base64

import pytest

from endpoint_operator.controller.access_watch import ANNOTATION
from tests.harness.operator_process import SHORT

KEY = "sk-secret"


@pytest.fixture
def settings():
    return SHORT | {
        "KEYS_SECRET": "ray-keys",
        "ACCESS_CONFIG_MAP": "ray-access",
        "POD_SELECTOR": "app=ray",
    }


class Core:
    """Objects of the namespace's core group."""

    def __init__(self, http, namespace):
        self._http = http
        self._path = f"/api/v1/namespaces/{namespace}"

    def create(self, plural, name, **content):
        body = {"metadata": {"name": name, **content.pop("metadata", {})}, **content}
        self._http.post(f"{self._path}/{plural}", json=body).raise_for_status()

    def pod(self, name, **labels):
        container = {"name": "main", "image": "none"}
        self.create("pods", name, metadata={"labels": labels}, spec={"containers": [container]})

    def write_key(self, key):
        data = {"data": {"team-a": base64.b64encode(key.encode()).decode()}}
        headers = {"content-type": "application/merge-patch+json"}
        path = f"{self._path}/secrets/ray-keys"
        if self._http.patch(path, json=data, headers=headers).status_code == 404:
            self.create("secrets", "ray-keys", **data)

    def mark(self, pod):
        metadata = self._http.get(f"{self._path}/pods/{pod}").raise_for_status().json()["metadata"]
        return metadata.get("annotations", {}).get(ANNOTATION)


def test_pods_of_ray_are_marked_when_keys_come_and_change(scene, http, namespace):
    core = Core(http, namespace)
    core.create("serviceaccounts", "default")
    core.pod("head", app="ray")
    core.pod("other", app="something-else")
    core.create("configmaps", "ray-access", data={})
    scene.operator.start()
    first = scene.until(lambda: core.mark("head"))
    assert first.startswith("none.")
    core.write_key(KEY)
    second = scene.until(lambda: (mark := core.mark("head")) != first and mark)
    core.write_key(f"{KEY}-new")
    third = scene.until(lambda: (mark := core.mark("head")) != second and mark)
    assert len({first, second, third}) == 3
    assert core.mark("other") is None
    assert KEY not in scene.operator.output()
