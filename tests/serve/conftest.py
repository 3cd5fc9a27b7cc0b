import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """Three sample models, served by the command for all tests that leave it as they found it."""
    from tests.serve.service import MODELS, SAMPLES, running

    folder = tmp_path_factory.mktemp("manifests")
    for name in ("sentiment", "minilm", "random-seq2seq"):
        (folder / f"{name}.yaml").write_text((SAMPLES / f"{name}.yaml").read_text())
    with running(folder, "--models", str(MODELS)) as service:
        yield service


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """A client of the proxy in front of the gateway, a model "a", and a model "idle" that has no replica."""
    from tests.serve.proxied import Replica, backend, running
    from tests.unit.http_double import serving

    with (
        serving(Replica, name="gateway") as gateway,
        serving(Replica, name="a") as model,
        serving(Replica, name="fallback") as fallback,
    ):
        backends = {
            "gateway": backend("gateway", "/", [gateway], fallback),
            "a": backend("a", "/v2/models/a", [model], fallback),
            "idle": backend("idle", "/v2/models/idle", [], fallback),
        }
        with running(tmp_path_factory.mktemp("haproxy"), backends) as (client, _, _):
            yield client
