"""Render the chart with helm, and find objects in the result."""

from pathlib import Path

import yaml

from hack.commands import run
from hack.paths import CHART
from hack.toolchain.binaries import binary_path

# What the chart cannot know; whoever wants other values names them again, and the last one wins.
REQUIRED = [
    "--set=image.repository=registry.example/serve,image.tag=build-1",
    "--set=operator.image.repository=registry.example/operator",
    "--set=auth.secretName=ray-auth",
]
SCENARIOS = sorted((CHART / "ci").glob("*.yaml"))
EVERYTHING = [
    "--set=monitoring.podMonitor=true,monitoring.serviceMonitor=true,monitoring.prometheusRule=true",
    "--set=monitoring.grafanaDashboard=true,hub.tokenSecret.name=hub,hub.cacheClaim=cache",
    "--set=modelVolumes={first,second},imagePullSecrets[0].name=registry,rbac.aggregate=true",
]
# What is off or empty by default, switched on.
CUSTOMISED = [f"--values={Path(__file__).with_name('customised.yaml')}"]


def template(*options, chart=CHART, release="models"):
    """Return the objects of the chart with the required values and `options`."""
    return template_as_given(*REQUIRED, *options, chart=chart, release=release)


def template_as_given(*options, chart=CHART, release="models"):
    """Return the objects of the chart with `options` alone."""
    text = run(binary_path("helm"), "template", release, str(chart), "--namespace=here", *options)
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def ray_pods(documents):
    """Return the pod templates of the head and of each worker group."""
    [service] = of_kind(documents, "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def operator_pod(documents):
    """Return the pod template of the operator, and its only container."""
    [deployment] = of_kind(documents, "Deployment")
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    return pod, container


def environment(container):
    """Return the variables of a container with their values; None for one that comes from elsewhere."""
    return {variable["name"]: variable.get("value") for variable in container["env"]}
