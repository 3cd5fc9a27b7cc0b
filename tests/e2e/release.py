"""One installed release of the chart, and what people do with it: apply, wait, ask, look."""

import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

from hack.cluster import volumes
from hack.errors import KubectlError
from tests.load import load_on

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "model-endpoints"
VALUES = CHART / "ci" / "kind-values.yaml"
IMPATIENT = Path(__file__).with_name("values.yaml")
# Where `hub.py` is for the tests that run it; nobody asks it for a model that is in the image.
HUB = "http://hub:8080"
SAMPLES = ROOT / "manifests" / "samples"
GOOD = {"text": "I love this product"}
# Imports of a replica take long while others import on the same two cores.
WAIT_SECONDS = 240


class Release:
    """The release `models` in a namespace that enforces restricted pod security."""

    name = "models-model-endpoints"

    def __init__(self, kubectl, helm, namespace, url):
        self._kubectl = kubectl
        self._helm = helm
        self.namespace = namespace
        self.http = httpx.Client(base_url=url, timeout=60)

    def kubectl(self, *arguments, manifest=None):
        # First: after `--`, arguments belong to the command that runs in a pod.
        return self._kubectl(f"--namespace={self.namespace}", *arguments, manifest=manifest)

    def forwarded(self, port):
        """Return a context with a port of this machine that leads to `port` of the models."""
        return self._kubectl.forwarded(
            f"service/{self.name}-serve-svc", port, f"--namespace={self.namespace}"
        )

    def get(self, *arguments):
        return self._kubectl.get(*arguments, f"--namespace={self.namespace}")

    def install(self, *options):
        """Run `helm install`, or `helm upgrade` where it is installed."""
        self._helm(
            # A definition that an earlier release kept is taken over.
            *("upgrade", "--install", "--take-ownership", "models", str(CHART), f"--values={VALUES}"),
            *(f"--values={IMPATIENT}", f"--set=hub.offline=false,hub.endpoint={HUB}"),
            *(f"--namespace={self.namespace}", *options),
        )

    def uninstall(self):
        """Run `helm uninstall`, if it is installed."""
        self._helm("uninstall", "models", f"--namespace={self.namespace}", "--wait", "--ignore-not-found")

    def prepare(self):
        """Make the namespace, and the claim through which its pods see torch."""
        self._kubectl("create", "namespace", self.namespace)
        self._kubectl(
            *("label", "namespace", self.namespace, "pod-security.kubernetes.io/enforce=restricted"),
        )
        volumes.provide_torch(self._kubectl, self.namespace)

    def apply(self, *manifests):
        self.kubectl("apply", "--filename=-", manifest=yaml.safe_dump_all(manifests))

    def delete(self, name):
        self.kubectl("delete", "modelendpoint", name)

    def delete_samples(self, *kept):
        """Delete the samples that earlier tests have left: where all of Ray starts again, each would, too."""
        names = {path.stem for path in SAMPLES.glob("*.yaml")} - {*kept}
        self.kubectl("delete", "modelendpoint", *sorted(names), "--ignore-not-found")

    def kill(self, selector, namespace=None):
        """Kill the pods that are selected, in the namespace of the release unless another one is named."""
        self._kubectl(
            *("delete", "pod", f"--selector={selector}", "--grace-period=0", "--force", "--wait=false"),
            f"--namespace={namespace or self.namespace}",
        )

    def conditions(self, name):
        status = self.get("modelendpoint", name).get("status", {})
        return {condition["type"]: condition for condition in status.get("conditions", [])}

    def ready(self, name):
        """Return the condition Ready as (status, reason)."""
        condition = self.conditions(name).get("Ready", {})
        return condition.get("status"), condition.get("reason")

    def wait_ready(self, *names, seconds=WAIT_SECONDS):
        resources = [f"modelendpoint/{name}" for name in names]
        self.kubectl("wait", *resources, "--for=condition=Ready", f"--timeout={seconds}s")

    def wait_for(self, what, condition, seconds=WAIT_SECONDS):
        """Return the first true value of `condition`; fail with what all endpoints say if none comes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.5)
        raise AssertionError(f"not within {seconds} s: {what}\n{self.kubectl('get', 'modelendpoints')}")

    def stays(self, what, holds, seconds):
        """Check that `holds()` for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert holds(), f"no more: {what}"
            time.sleep(1)

    def answers(self, name, body=GOOD):
        """Return the answer of a model, None unless it is 200."""
        try:
            response = self.http.post(f"/v2/models/{name}/predict", json=body)
        except httpx.TransportError:
            return None
        return response.json() if response.status_code == 200 else None

    @contextmanager
    def load(self, name, clients=2, pause=0.05, connecting=0):
        url = f"{self.http.base_url}/v2/models/{name}/predict"
        with load_on(url, GOOD, clients, pause, connecting) as load:
            yield load

    def serve_config(self):
        return self.get("rayservice", self.name)["spec"]["serveConfigV2"]

    def cluster(self):
        """Return the name of the active Ray cluster; one that it has replaced is there for a minute more."""
        return self.get("rayservice", self.name)["status"]["activeServiceStatus"]["rayClusterName"]

    def pods(self, **labels):
        """Return the living pods of Ray that have `labels`, such as group="gpu"."""
        selector = ",".join(f"ray.io/{key.replace('_', '-')}={value}" for key, value in labels.items())
        found = self.get("pods", f"--selector={selector}" if selector else "--selector=ray.io/cluster")
        return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]

    def applications(self):
        """Return what Serve itself says of its applications, asked with the token from inside the head."""
        [head] = self.pods(node_type="head", cluster=self.cluster())
        code = (
            "import os, urllib.request as u; print(u.urlopen(u.Request("
            "'http://127.0.0.1:8265/api/serve/applications/',"
            "headers={'Authorization': 'Bearer ' + os.environ['RAY_AUTH_TOKEN']})).read().decode())"
        )
        text = self.kubectl(
            "exec", head["metadata"]["name"], "--container=ray-head", "--", "python3", "-c", code
        )
        return yaml.safe_load(text)["applications"]

    def replicas(self, name):
        """Return the identifiers of the replicas of `name` that run."""
        deployments = self.applications().get(name, {}).get("deployments", {}).values()
        found = [replica for deployment in deployments for replica in deployment["replicas"]]
        return sorted(replica["replica_id"] for replica in found if replica["state"] == "RUNNING")

    def logs(self, folder):
        """Write what explains a failure to `folder`: events, objects, logs of every container."""
        folder.mkdir(parents=True, exist_ok=True)
        for kind_name in ("events", "pods", "modelendpoints", "rayservices", "rayclusters"):
            (folder / f"{kind_name}.yaml").write_text(self._told("get", kind_name, "--output=yaml"))
        for pod in self.get("pods")["items"]:
            name = pod["metadata"]["name"]
            for container in pod["spec"]["containers"]:
                (folder / f"{name}-{container['name']}.log").write_text(
                    self._told("logs", name, f"--container={container['name']}")
                )

    def _told(self, *arguments):
        """Return what kubectl writes, or why it failed: a container may not have started, a kind be gone."""
        try:
            return self.kubectl(*arguments)
        except KubectlError as error:
            return str(error)


def endpoint(name, uri="file:///models/sentiment", task="text-classification", **spec):
    """Return a ModelEndpoint with small resources."""
    model = {"uri": uri, "task": task, **spec.pop("model", {})}
    return {
        "apiVersion": "serving.modelendpoint.dev/v1alpha1",
        "kind": "ModelEndpoint",
        "metadata": {"name": name},
        "spec": {"model": model, "resources": {"memory": "1Gi", **spec.pop("resources", {})}, **spec},
    }
