"""Weights that several processes hold together."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from serve_app.encoders import onednn
from serve_app.encoders.onednn import OneDnnLinear, has_kernels, prepacked_buffer, use_kernels
from serve_app.encoders.shared_weights import share_weights

pytestmark = pytest.mark.skipif(not has_kernels(torch.float32), reason="this machine has no kernels")

ANOTHER_PROCESS = """
import sys, torch
from pathlib import Path
from tests.serve.test_shared_weights import small_model
from serve_app.encoders.shared_weights import share_weights
share_weights(small_model(seed=int(sys.argv[2])), Path(sys.argv[1]))
print("shared", flush=True)
sys.stdin.read()
"""


def small_model(seed=7, dtype=torch.float32):
    """Return an embedding and two layers with prepacked weights."""
    torch.manual_seed(seed)
    layers = (torch.nn.Embedding(30, 96), torch.nn.Linear(96, 160), torch.nn.Linear(160, 33, bias=False))
    model = torch.nn.Sequential(*layers).to(dtype).eval()
    use_kernels(model)
    return model


def answer(model):
    with torch.inference_mode():
        return model(torch.arange(30))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_weights_are_the_same_ones(tmp_path, dtype):
    if not has_kernels(dtype):
        pytest.skip(f"this machine has no kernels for {dtype}")
    model = small_model(dtype=dtype)
    before = answer(model)
    addresses = [prepacked_buffer(each.weight)[0] for each in model if isinstance(each, OneDnnLinear)]
    share_weights(model, tmp_path)
    assert torch.equal(answer(model), before)
    [file] = tmp_path.iterdir()
    now = [prepacked_buffer(each.weight)[0] for each in model if isinstance(each, OneDnnLinear)]
    now.append(model[0].weight.data_ptr())
    assert not set(now) & set(addresses)
    assert all(str(file) == mapped_at(address) for address in now)


def mapped_at(address):
    """Return the file at an address of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split()
        first, end = (int(each, 16) for each in span.split("-"))
        if first <= address < end:
            return name
    return None


def test_the_same_weights_are_one_file_and_others_another(tmp_path):
    share_weights(small_model(), tmp_path)
    [file] = tmp_path.iterdir()
    written = file.stat()
    share_weights(small_model(), tmp_path)
    assert [each.stat().st_ino for each in tmp_path.iterdir()] == [written.st_ino]
    share_weights(small_model(seed=8), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_written_to_a_shared_weight_stays_in_the_process(tmp_path):
    first, second = small_model(), small_model()
    for model in (first, second):
        share_weights(model, tmp_path)
    before = answer(second)
    with torch.no_grad():
        first[0].weight.zero_()
    assert torch.equal(answer(second), before)
    assert not torch.equal(answer(first), before)


def test_a_file_goes_when_the_last_process_that_maps_it_has_gone(tmp_path):
    others = [start_another(tmp_path, seed=1) for _ in range(2)]
    [file] = tmp_path.iterdir()
    stop(others[0])
    share_weights(small_model(seed=2), tmp_path)
    assert file in tmp_path.iterdir()
    stop(others[1])
    share_weights(small_model(seed=3), tmp_path)
    assert file not in tmp_path.iterdir()


def test_a_model_that_comes_back_finds_its_file(tmp_path):
    stop(start_another(tmp_path, seed=1))
    [file] = tmp_path.iterdir()
    written = file.stat()
    share_weights(small_model(seed=1), tmp_path)
    assert file.stat().st_ino == written.st_ino
    assert file.stat().st_mtime_ns == written.st_mtime_ns


def test_those_that_start_at_once_map_one_file(tmp_path):
    others = [launch(tmp_path, seed=1) for _ in range(3)]
    for other in others:
        assert other.stdout.readline() == "shared\n"
    [file] = tmp_path.iterdir()
    for other in others:
        assert f" {file.stat().st_ino} " in Path(f"/proc/{other.pid}/maps").read_text()
        stop(other)


def start_another(folder, seed):
    process = launch(folder, seed)
    assert process.stdout.readline() == "shared\n"
    return process


def launch(folder, seed):
    command = [sys.executable, "-c", ANOTHER_PROCESS, str(folder), str(seed)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def stop(process):
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_file_with_other_content_than_its_name_says_is_written_anew(tmp_path):
    process = start_another(tmp_path, seed=1)
    [file] = tmp_path.iterdir()
    size = file.stat().st_size
    with file.open("r+b") as content:
        content.write(b"spoiled")
    model = small_model(seed=1)
    before = answer(model)
    share_weights(model, tmp_path)
    stop(process)
    assert torch.equal(answer(model), before)
    assert file.stat().st_size == size
    assert not file.read_bytes().startswith(b"spoiled")


@pytest.mark.parametrize("kept", [0, 1000])
def test_half_a_file_is_no_obstacle(tmp_path, kept):
    process = start_another(tmp_path, seed=1)
    [file] = tmp_path.iterdir()
    stop(process)
    half = file.read_bytes()[:kept]
    file.write_bytes(half)
    share_weights(small_model(seed=1), tmp_path)
    assert file.stat().st_size > len(half)


def test_without_a_place_for_files_the_weights_stay_as_they_are(tmp_path, caplog):
    model = small_model()
    before = answer(model)
    nowhere = tmp_path / "file"
    nowhere.touch()
    with caplog.at_level("WARNING", logger="ray.serve"):
        share_weights(model, nowhere)
    assert "this replica shares no weights with others: " in caplog.text
    assert torch.equal(answer(model), before)


def test_with_a_torch_that_was_not_tested_prepacked_weights_stay_private(tmp_path, monkeypatch):
    monkeypatch.setattr(onednn, "_TESTED", ("2.6",))
    model = small_model()
    before = answer(model)
    addresses = [prepacked_buffer(each.weight)[0] for each in model if isinstance(each, OneDnnLinear)]
    share_weights(model, tmp_path)
    assert torch.equal(answer(model), before)
    assert addresses == [prepacked_buffer(each.weight)[0] for each in model if isinstance(each, OneDnnLinear)]
    [file] = tmp_path.iterdir()
    assert mapped_at(model[0].weight.data_ptr()) == str(file)


def test_the_linear_layers_of_gpt2_get_kernels_too():
    layer = Conv1D(160, 96)
    torch.nn.init.normal_(layer.bias)
    model = torch.nn.Sequential(layer)
    inputs = torch.randn(7, 96)
    with torch.inference_mode():
        expected = model(inputs)
        use_kernels(model)
        assert isinstance(model[0], OneDnnLinear)
        assert torch.allclose(model(inputs), expected, atol=1e-5)
