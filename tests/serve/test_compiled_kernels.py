"""What is compiled for shapes of inputs: sizes are filled up to few, and a model's answers are the same."""

import subprocess
import sys

import pytest
import torch
import transformers

from serve_app.decoders.steps import DecoderSteps
from serve_app.encoders.onednn import has_kernels, padded_tokens
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
    "initializer_range": 0.1,
}

# Prompts of any lengths, in pieces that begin anywhere, beside up to eight sequences. Each half of the load
# has lengths that the other one has not, and the growth is printed that the second half brings, in MiB.
LOAD = """
import os, random
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
steps = DecoderSteps(model, 2048, fills=True)
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


@pytest.mark.skipif(not has_kernels(torch.bfloat16), reason="the processor computes no bfloat16")
def test_prompts_of_any_lengths_leave_memory_flat():
    # As they are, each length brings a mebibyte, on processors that have AMX.
    ended = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 80


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request):
    return request.param


def tiny(dtype, **others):
    torch.manual_seed(1)
    return transformers.MistralForCausalLM(transformers.MistralConfig(**CONFIG, **others)).to(dtype).eval()


@pytest.mark.parametrize("traced", [False, True], ids=["Python", "TorchScript"])
@pytest.mark.parametrize("window", [None, 5])
def test_what_fills_a_step_up_changes_no_answer(dtype, window, traced):
    model = tiny(dtype, sliding_window=window)
    ids = torch.randint(0, 60, (CAPACITY,)).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].float()
    steps = DecoderSteps(model, CAPACITY, fills=True)
    if traced:
        steps.trace()
        assert steps._traced is not None
    # 100 tokens, and then 171; the second piece goes up to the end of its place.
    with torch.inference_mode():
        first = steps.logits([Row(0, 0, ids[:30], chooses=True), Row(1, 0, ids[:70], chooses=True)])
        second = steps.logits([Row(0, 30, ids[30:], chooses=True), Row(1, 70, ids[70:71], chooses=True)])
    tolerance = 1e-4 if dtype is torch.float32 else 0.1
    for computed, ends in ((first, [29, 69]), (second, [CAPACITY - 1, 70])):
        torch.testing.assert_close(computed.float(), expected[ends], rtol=tolerance, atol=tolerance)


def test_what_an_earlier_sequence_has_left_is_not_in_an_answer(dtype):
    model = tiny(dtype)
    steps = DecoderSteps(model, CAPACITY)
    row = Row(0, 0, [7] * 33, chooses=True)
    expected = steps.step([row])
    steps._cache.tensor[0, :, :, :, 40:] = float("nan")
    assert steps.step([row]) == expected
