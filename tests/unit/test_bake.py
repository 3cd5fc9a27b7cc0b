"""Models that are put into an image: what lands where, and what is said if there is no such model."""

import os
import subprocess
import sys

import pytest

from tests.unit import hub_double


@pytest.fixture
def built(tmp_path):
    """A folder of built models with one in it."""
    model = tmp_path / "built" / "mine"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "built"


@pytest.fixture
def bake(built, tmp_path):
    """Return a function that runs the command as the Dockerfile does."""

    def run(*models, **environment):
        command = [
            sys.executable,
            "-m",
            "serve_app.loading.bake",
            "--built",
            built,
            "--into",
            tmp_path / "image",
            *models,
        ]
        settings = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        environment = os.environ | settings | environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_built_model_is_copied_and_its_uri_is_said(bake, tmp_path):
    result = bake("mine", "mine")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"mine: file://{tmp_path}/image/mine" in result.stdout
    assert (tmp_path / "image/mine/model.safetensors").read_bytes() == b"weights"


def test_a_model_of_the_hub_is_copied_at_its_revision_without_links(bake, tmp_path):
    with hub_double.running_hub() as (url, asked):
        result = bake("hf://org/name@v1", HF_ENDPOINT=url)
    assert result.returncode == 0, result.stderr
    files = {path.name: path for path in (tmp_path / "image/org/name").rglob("*")}
    assert files["model.safetensors"].read_bytes() == b"weights"
    assert "pytorch_model.bin" not in files
    assert not any(path.is_symlink() for path in files.values())
    assert any("/v1" in path for path in asked)


def test_without_models_there_is_an_empty_folder(bake, tmp_path):
    assert bake().returncode == 0
    assert list((tmp_path / "image").iterdir()) == []


def test_a_model_that_is_not_there_ends_the_build_with_a_sentence(bake):
    result = bake("other")
    assert result.returncode == 1
    assert result.stderr.startswith("error: other: there is no config.json in ")
