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
