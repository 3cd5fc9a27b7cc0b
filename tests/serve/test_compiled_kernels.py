"""What is compiled for shapes of inputs: sizes are filled up to few, and a model's answers are the same."""

import subprocess
import sys

import pytest
import torch
import transformers

from serve_app.decoders.steps import DecoderSteps
from serve_app.encoders.onednn import padded_tokens
from serve_app.engine.continuous.choice import Row

CAPACITY = 200
CONFIG = {
    "vocab_size": 60,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": CAPACITY,
    "initializer_range": 0.3,
}

# Prompts of any lengths, in pieces that begin anywhere, beside up to eight sequences. Each half of the load
# has lengths that the other one has not, and the growth is printed that the second half brings, in MiB.
LOAD = """
import os, random
import serve_app.tasks
import torch, transformers
from serve_app.decoders.steps import DecoderSteps
from serve_app.encoders.onednn import use_kernels
from serve_app.engine.continuous.choice import Row

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

torch.set_num_threads(2)
config = transformers.LlamaConfig(
    vocab_size=60, hidden_size=192, num_hidden_layers=1, num_attention_heads=3, intermediate_size=576,
    max_position_embeddings=2048,
)
model = transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()
use_kernels(model)
steps = DecoderSteps(model, 2048)
numbers = random.Random(1)
lengths = numbers.sample(range(20, 512), 400)
for half in lengths[:200], lengths[200:]:
    before = resident()
    for length in half:
        others = range(1, numbers.randint(1, 9))
        rows = [Row(place, numbers.randint(0, 900), [5], chooses=True) for place in others]
        steps.step([*rows, Row(0, numbers.randint(0, 1000), [5] * length, chooses=True)])
print(resident() - before)
"""


def test_the_sizes_are_few_and_close():
    sizes = [padded_tokens(count) for count in range(1, 4097)]
    assert sizes[:64] == list(range(1, 65))
    for count, size in enumerate(sizes, start=1):
        assert count <= size < count + max(8, count / 16)
        assert padded_tokens(size) == size
    assert len(set(sizes)) == 64 + 8 + 5 * 16


def test_prompts_of_any_lengths_leave_memory_flat():
    # Without limits, each length brought two MiB, on processors that have units for matrices.
    ended = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 80


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 5])
def test_what_fills_a_step_up_changes_no_answer(dtype, window):
    torch.manual_seed(1)
    config = transformers.MistralConfig(**CONFIG, sliding_window=window)
    model = transformers.MistralForCausalLM(config).to(dtype).eval()
    ids = torch.randint(0, 60, (CAPACITY,)).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].float()
    steps = DecoderSteps(model, CAPACITY)
    steps.logits([Row(0, 0, ids[:33], chooses=True), Row(1, 0, ids[:70], chooses=True)])
    # The last piece goes up to the end of its place.
    rows = [Row(0, 33, ids[33:], chooses=True), Row(1, 70, ids[70:71], chooses=True)]
    computed = steps.logits(rows).float()
    tolerance = 1e-4 if dtype is torch.float32 else 0.05
    torch.testing.assert_close(computed, expected[[CAPACITY - 1, 70]], rtol=tolerance, atol=tolerance)
