"""Which token is chosen: the same probabilities as transformers' own warpers, in every combination."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from serve_app.decoders.sampling import choose
from serve_app.engine.base import NotFiniteError
from serve_app.engine.continuous.choice import Row, Sampling

DRAWS = 1000


def logits_of(size, scale, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale


def chosen(logits, sampling, draws, so_far=(), prompt=0):
    rows = [Row(0, 0, [0], True, sampling, draw, so_far, prompt) for draw in draws]
    return choose(logits.expand(len(rows), -1), rows)


def frequencies(logits, sampling, **options):
    """Return how often each token is chosen by evenly spaced draws, as a part of all."""
    draws = [(number + 0.5) / DRAWS for number in range(DRAWS)]
    counts = Counter(choice.token for choice in chosen(logits, sampling, draws, **options))
    return torch.tensor([counts[token] / DRAWS for token in range(len(logits))])


def probabilities(logits, sampling):
    """Return those that transformers' `generate` draws from."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers(torch.zeros(1, 1, dtype=torch.long), logits[None])[0].softmax(-1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.4},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 7},
        {"top_k": 300},
        {"top_k": 10_000},
        {"top_p": 0.9},
        {"top_p": 0.05},
        {"top_p": 1e-6},
        {"min_p": 0.05},
        {"min_p": 1.0},
        {"temperature": 0.7, "top_k": 50, "top_p": 0.8, "min_p": 0.02},
        {"temperature": 1.6, "top_k": 20, "top_p": 0.95},
        {"top_k": 400, "top_p": 0.9},
    ],
    ids=str,
)
# Few tokens; many, some of them likely; many of about the same probability, more than are sorted at first.
@pytest.mark.parametrize(("size", "scale"), [(12, 2.0), (2000, 3.0), (700, 0.05)])
def test_draws_follow_the_probabilities_of_transformers(options, size, scale):
    sampling = Sampling(samples=True, **options)
    logits = logits_of(size, scale)
    right, got = probabilities(logits, sampling), frequencies(logits, sampling)
    # Evenly spaced draws fall on each token as often as it is likely, up to one of them.
    assert (got - right).abs().max() < 1.01 / DRAWS + 1e-4
    assert not got[right == 0].any()
    assert set((right > 1.5 / DRAWS).nonzero().flatten().tolist()) <= set(got.nonzero().flatten().tolist())


@given(
    st.integers(0, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([0, 1, 3, 280]),
    st.sampled_from([1.0, 0.999, 0.3]),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([2, 256, 257, 600]),
)
def test_any_draw_falls_on_a_token_that_is_kept(seed, draw, top_k, top_p, min_p, size):
    sampling = Sampling(True, 0.9, top_k, top_p, min_p)
    logits = logits_of(size, 0.01 + seed % 5, seed)
    [choice] = chosen(logits, sampling, [draw])
    assert probabilities(logits, sampling)[choice.token] > 0


def test_tokens_that_the_model_rules_out_are_never_drawn():
    logits = torch.full((600,), float("-inf"))
    logits[[3, 500]] = torch.tensor([1.0, 1.0])
    got = frequencies(logits, Sampling(samples=True))
    assert got[[3, 500]].tolist() == pytest.approx([0.5, 0.5], abs=0.002)


def test_without_sampling_it_is_the_likeliest():
    logits = torch.stack([logits_of(50, 1, seed) for seed in range(20)])
    rows = [Row(0, 0, [0], True, Sampling(temperature=0.1, top_k=3, top_p=0.5), 0.99) for _ in logits]
    assert [choice.token for choice in choose(logits, rows)] == logits.argmax(-1).tolist()
    assert [choice.token for choice in choose(logits.bfloat16(), rows)] == logits.bfloat16().argmax(
        -1
    ).tolist()


def test_each_row_has_its_own_way():
    logits = logits_of(50, 1).expand(3, -1)
    rows = [
        Row(0, 0, [0], True, Sampling(), 0.9),
        Row(1, 0, [0], True, Sampling(samples=True, top_k=2), 0.999),
        Row(2, 0, [0], True, Sampling(top_logprobs=2)),
    ]
    best, second = logits[0].topk(2).indices.tolist()
    one, two, three = choose(logits, rows)
    assert [one.token, two.token, three.token] == [best, second, best]
    assert one.top == two.top == ()
    assert [token for token, _ in three.top] == [best, second]


@pytest.mark.parametrize("samples", [False, True])
def test_penalties_count_what_was_generated(samples):
    """As OpenAI's API says: presence once, frequency for each time; the prompt does not count."""
    logits, so_far = logits_of(10, 0.5), [1, 1, 2, 3, 4, 4, 4]
    sampling = Sampling(samples=samples, presence_penalty=0.7, frequency_penalty=-0.4)
    expected = logits.clone()
    expected[3] -= 0.7 - 0.4
    expected[4] -= 0.7 - 3 * 0.4
    got = frequencies(logits, sampling, so_far=so_far, prompt=3)
    right = expected.softmax(-1) if samples else torch.eye(10)[expected.argmax()]
    assert (got - right).abs().max() < 1.01 / DRAWS + 1e-4


def test_processors_see_all_tokens_and_come_before_penalties():
    logits, so_far = logits_of(10, 1), [1, 2, 5, 1]
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.7), NoRepeatNGramLogitsProcessor(2)])
    sampling = Sampling(samples=True, processors=processors, presence_penalty=0.5)
    expected = processors(torch.tensor([so_far]), logits[None].clone())[0]
    assert expected[2] == float("-inf")
    expected[[5, 1]] -= 0.5
    got = frequencies(logits, sampling, so_far=so_far, prompt=2)
    assert (got - expected.softmax(-1)).abs().max() < 1.01 / DRAWS + 1e-4
    # The model's own numbers stay as they were.
    assert torch.equal(logits, logits_of(10, 1))


def test_log_probabilities_are_those_of_the_model_whatever_is_drawn():
    logits = logits_of(30, 2)
    right = logits.log_softmax(-1)
    sampling = Sampling(True, 0.5, 5, presence_penalty=2.0, top_logprobs=3)
    for choice in chosen(logits, sampling, [0.1, 0.9], so_far=[7], prompt=0):
        assert choice.logprob == pytest.approx(float(right[choice.token]), abs=1e-5)
        assert [token for token, _ in choice.top] == right.topk(3).indices.tolist()
        assert [score for _, score in choice.top] == pytest.approx(right.topk(3).values.tolist(), abs=1e-5)
    [few] = chosen(logits[:2], Sampling(top_logprobs=5), [0.0])
    assert len(few.top) == 2
    [none] = chosen(logits, Sampling(top_logprobs=0), [0.0])
    assert none.top == ()
    assert none.logprob == pytest.approx(float(right.max()), abs=1e-5)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(samples=True), Sampling(top_logprobs=1)])
def test_a_number_that_is_none_is_an_error(sampling):
    logits = logits_of(30, 2).expand(2, -1).clone()
    logits[1, 3] = float("nan")
    with pytest.raises(NotFiniteError):
        choose(logits, [Row(0, 0, [0], True, sampling), Row(1, 0, [0], True, sampling)])
