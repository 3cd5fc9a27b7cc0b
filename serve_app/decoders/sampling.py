"""Choose the next token of each row from the model's logits.

Temperature, top-k, top-p and min-p are applied in this order, as transformers does. A number between 0 and 1
then decides along the probabilities, highest first, so that rounding seldom changes which token it is.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import torch

from serve_app.engine.base import NotFiniteError
from serve_app.engine.continuous.choice import Choice, Row, Sampling

# So many of the likeliest tokens are sorted at first. Almost always they have more than top_p together.
_LIKELIEST: Final = 256


def choose(logits: torch.Tensor, rows: Sequence[Row]) -> list[Choice]:
    """Return the token of each row; `logits` are (rows, vocabulary). Raises NotFiniteError."""
    if bool(logits.isnan().any()):
        raise NotFiniteError
    plain = [not (row.sampling.samples or row.sampling.needs_tokens) for row in rows]
    if all(plain) and all(row.sampling.top_logprobs is None for row in rows):
        return [Choice(token) for token in logits.argmax(-1).tolist()]
    return [_choose(logits[number].float(), row) for number, row in enumerate(rows)]


def _choose(logits: torch.Tensor, row: Row) -> Choice:
    sampling = row.sampling
    scores = _penalised(logits, row) if sampling.needs_tokens else logits
    token = _sampled(scores, sampling, row.draw) if sampling.samples else int(scores.argmax())
    if sampling.top_logprobs is None:
        return Choice(token)
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(min(sampling.top_logprobs, len(logprobs)))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Choice(token, float(logprobs[token]), top)


def _penalised(logits: torch.Tensor, row: Row) -> torch.Tensor:
    """Return the logits after transformers' processors and OpenAI's penalties of generated tokens."""
    scores = logits.clone()
    if row.sampling.processors:
        ids = torch.tensor([row.so_far], device=logits.device)
        scores = row.sampling.processors(ids, scores[None])[0]
    counts = Counter(row.so_far[row.prompt :])
    if counts:
        ids = torch.tensor(list(counts), device=logits.device)
        times = torch.tensor(list(counts.values()), device=logits.device)
        scores[ids] -= row.sampling.presence_penalty + row.sampling.frequency_penalty * times
    return scores


def _sampled(scores: torch.Tensor, sampling: Sampling, draw: float) -> int:
    """Return the token that `draw` falls on."""
    scores = scores / sampling.temperature
    most = min(sampling.top_k or len(scores), len(scores))
    total = (scores if most == len(scores) else scores.topk(most).values).logsumexp(-1)
    count = min(_LIKELIEST, most)
    while True:
        best, ids = scores.topk(count)
        probabilities = (best - total).exp()
        sums = probabilities.cumsum(-1)
        # Those before the sum reaches top_p, and the one with which it does.
        within = torch.cat([sums.new_zeros(1), sums[:-1]]) < sampling.top_p
        kept = int((within & (probabilities >= sampling.min_p * probabilities[0])).sum())
        # Beyond the sorted ones, there may be more that are kept.
        all_kept = kept < count or count == most
        whole = float(sums[kept - 1]) if all_kept else 1.0
        number = int((sums <= draw * whole).sum())
        if all_kept or (sampling.top_p == 1 and sampling.min_p == 0 and number < count):
            return int(ids[min(number, kept - 1)])
        count = min(count * 8, most)
