"""Few requests of many tokens get a second replica of a model that generates, and it goes again."""

import pytest

from serve_app.contract import Task
from tests.load import load_on
from tests.serve import tiny_models
from tests.serve.service import manifest

CLIENTS = 4
# Each request holds 45 tokens to its end; a replica aims at 8 requests.
ASKED = {"text": "the goal was", "parameters": {"max_new_tokens": 40, "ignore_eos": True}}
# Where two requests fill a replica, and where a hundred do.
BUDGETS = {"tight": 100, "roomy": 4096}
SCALING = {"minReplicas": 1, "maxReplicas": 2, "upscaleDelaySeconds": 0, "downscaleDelaySeconds": 1}
# Serve looks back for 6 seconds. The rest is for the start of a replica, and for its end.
SECONDS = 40


@pytest.fixture
def endpoints(service, tmp_path):
    folder = tiny_models.write(Task.TEXT_GENERATION, tmp_path / "causal")
    service.write(
        "scaled.yaml",
        *(
            manifest(
                name,
                f"file://{folder}",
                "text-generation",
                model={"dtype": "float32"},
                resources={"memory": "512Mi"},
                scaling=SCALING,
                batching={"maxBatchTokens": tokens},
            )
            for name, tokens in BUDGETS.items()
        ),
    )
    for name in BUDGETS:
        service.wait_ready(name)
    yield
    service.remove("scaled.yaml")
    service.wait_for("their removal", lambda: not BUDGETS.keys() & service.models().keys())


def test_tokens_get_a_second_replica_that_requests_alone_would_not(service, endpoints):
    def has(replicas):
        return lambda: len(service.replica_pids("tight")) == replicas

    loads = [load_on(service.url(f"/v2/models/{name}/predict"), ASKED, CLIENTS) for name in BUDGETS]
    with loads[0] as tight, loads[1] as roomy:
        service.wait_for("a second replica", has(2), SECONDS)
        # As many requests, and as many tokens.
        assert len(service.replica_pids("roomy")) == 1
    service.wait_for("the end of the second replica", has(1), SECONDS)
    assert tight.failures == roomy.failures == []
    assert min(tight.statuses[200], roomy.statuses[200]) > CLIENTS
