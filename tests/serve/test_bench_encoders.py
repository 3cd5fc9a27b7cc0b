"""The comparison of encoders, on a model of hardly any size."""

import pytest
import torch
from rich.console import Console

from bench import encoders, samples
from bench.samples import BenchModel
from serve_app.contract import Task
from tests.serve import tiny_models


@pytest.fixture
def _own_threads(monkeypatch):
    threads = torch.get_num_threads()
    # Pinning would stay for the tests that follow.
    monkeypatch.setattr("serve_app.tasks.pretrained_task.use_threads", torch.set_num_threads)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_own_threads")
def test_both_answer_alike_and_take_turns(tmp_path, monkeypatch):
    folder = tiny_models.write(Task.TEXT_CLASSIFICATION, tmp_path / "model")
    monkeypatch.setattr(encoders, "encoder", lambda name: BenchModel(name, folder, samples.CLASSIFICATION))
    # Of several lengths, none too long for the tiny model.
    monkeypatch.setattr(
        encoders, "make_texts", lambda kind, count: ["a goal " * (at % 9 + 1) for at in range(40)]
    )
    rows = encoders.measure("tiny", rounds=2)
    assert [(row.model, row.layers, row.texts) for row in rows] == [
        ("tiny", 2, "short"),
        ("tiny", 2, "mixed"),
    ]
    for row in rows:
        assert row.greatest_difference < 1e-4
        assert min(row.ours_ms, row.transformers_ms, row.ratio) > 0
    console = Console(record=True, width=150)
    encoders.show(console, rows)
    assert "own layers" in console.export_text()


@pytest.mark.parametrize("name", samples.ENCODERS)
def test_the_sizes_are_those_of_the_models(name):
    from transformers import AutoConfig

    kind, sizes = samples.ENCODERS[name]
    config = AutoConfig.for_model(kind, **sizes)
    assert (config.hidden_size, config.num_attention_heads) == (768, 12)
    assert config.num_hidden_layers == {"modernbert-base": 22}.get(name, 12)
