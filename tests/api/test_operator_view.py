"""What a person sees with kubectl, and what Kubernetes and Prometheus see of the operator."""

import re

import pytest

from hack.errors import KubectlError
from tests.harness.kuberay.serve import fails_to_start


@pytest.fixture
def broken(scene):
    """One endpoint that serves and one whose model is missing."""
    scene.ray.outcomes["broken"] = fails_to_start(
        "serve_app.loading.sources.SourceError: file:///models/broken: there is no folder /models/broken"
    )
    scene.may_leave.add("broken")
    scene.begin("good")
    scene.create("broken")
    return scene


def test_kubectl_waits_until_an_endpoint_is_ready(scene, kubectl):
    scene.operator.start()
    scene.create("a")
    kubectl("wait", "--for=condition=Ready", "mep/a", f"--namespace={scene.namespace}", "--timeout=30s")
    assert scene.is_ready("a")


def test_kubectl_does_not_take_a_broken_endpoint_for_ready(broken, kubectl):
    broken.until(lambda: broken.condition("broken", "Stalled")[0] == "True")
    with pytest.raises(KubectlError, match="timed out"):
        kubectl(
            *("wait", "--for=condition=Ready", "mep/broken"),
            f"--namespace={broken.namespace}",
            "--timeout=1s",
        )


def test_kubectl_get_shows_which_one_is_broken_and_why(broken, kubectl):
    broken.until(lambda: broken.condition("broken") == ("False", "Withdrawn"))
    lines = kubectl("get", "mep", f"--namespace={broken.namespace}").splitlines()
    rows = {line.split()[0]: line.split()[1:3] for line in lines[1:]}
    assert rows == {"good": ["True", "Serving"], "broken": ["False", "Withdrawn"]}


def test_kubectl_describe_shows_the_cause(broken, kubectl):
    broken.until(lambda: broken.condition("broken") == ("False", "Withdrawn"))
    shown = kubectl("describe", "mep/broken", f"--namespace={broken.namespace}")
    assert "there is no folder /models/broken" in shown
    assert "Traceback" not in shown


def test_the_metrics_count_what_was_done(broken):
    broken.until(lambda: broken.condition("broken") == ("False", "Withdrawn"))
    broken.until(lambda: metric(broken, "serve_config_bytes") == len(broken.service.document))
    assert metric(broken, "rollbacks_total") == 1
    assert metric(broken, "serve_config_writes_total") == len(broken.writes)
    assert metric(broken, 'endpoints{reason="Serving"}') == 1
    assert metric(broken, 'endpoints{reason="Withdrawn"}') == 1


def metric(scene, name):
    line = rf"^model_endpoints_operator_{re.escape(name)} (\S+)$"
    [value] = re.findall(line, scene.operator.metrics(), re.MULTILINE)
    return float(value)
