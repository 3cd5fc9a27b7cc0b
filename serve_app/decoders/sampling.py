"""Choose the next token of each row from the model's logits.

Temperature, top-k, top-p and min-p are applied in this order, as transformers does. A number between 0 and 1
then decides along the probabilities, highest first, so that rounding seldom changes which token it is.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import torch

from serve_app.engine.base import NotFiniteError
from serve_app.engine.continuous.choice import Choice, Row

# So many of the likeliest tokens are sorted at first. Almost always they have more than top_p together.
_LIKELIEST: Final = 256


def choose(logits: torch.Tensor, rows: Sequence[Row]) -> list[Choice]:
    """Return the token of each row; `logits` are (rows, vocabulary). Raises NotFiniteError."""
    # The maximum is no number if one of them is none. torch finds it in less time than `argmax` takes.
    best, highest = logits.max(-1)
    if bool(best.isnan().any()):
        raise NotFiniteError
    sampled = [number for number, row in enumerate(rows) if row.sampling.samples]
    penalised = [number for number, row in enumerate(rows) if row.sampling.needs_tokens]
    tokens: list[int] = highest.tolist()
    scores = logits.float() if sampled or penalised else logits
    if penalised:
        scores = scores.clone()
        for number in penalised:
            scores[number] = _penalised(scores[number], rows[number])
            tokens[number] = int(scores[number].argmax())
    if sampled:
        own = scores if len(sampled) == len(rows) else scores[sampled]
        for number, token in zip(sampled, _sampled(own, [rows[each] for each in sampled]), strict=True):
            tokens[number] = token
    return [_choice(logits[number], token, rows[number]) for number, token in enumerate(tokens)]


def _choice(logits: torch.Tensor, token: int, row: Row) -> Choice:
    """Return what is to be known of a chosen token: probabilities are the model's, before any penalty."""
    wanted = row.sampling.top_logprobs
    if wanted is None:
        return Choice(token)
    logprobs = logits.float().log_softmax(-1)
    values, ids = logprobs.topk(min(wanted, len(logprobs)))
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


def _sampled(scores: torch.Tensor, rows: Sequence[Row]) -> list[int]:
    """Return the token that each row's draw falls on; `scores` are (rows, vocabulary)."""
    temperatures = _column([row.sampling.temperature for row in rows], scores)
    return _drawn(scores / temperatures, rows, _LIKELIEST)


def _drawn(scores: torch.Tensor, rows: Sequence[Row], count: int) -> list[int]:
    """Return the tokens by the `count` likeliest ones, and by more of them for rows where these do not do."""
    size = scores.shape[1]
    count = min(count, size)
    most = [min(row.sampling.top_k or size, size) for row in rows]
    best, ids = scores.topk(count)
    inside = torch.arange(count, device=scores.device) < _column(most, scores)
    probabilities = (best - _total(scores, best, most)).exp() * inside
    sums = probabilities.cumsum(-1)
    # Those before the sum reaches top_p, and the one with which it does.
    before = torch.nn.functional.pad(sums[:, :-1], (1, 0))
    top_p = _column([row.sampling.top_p for row in rows], scores)
    min_p = _column([row.sampling.min_p for row in rows], scores)
    within = inside & (before < top_p) & (probabilities >= min_p * probabilities[:, :1])
    kept = within.sum(-1, keepdim=True)
    # Beyond the sorted ones, there may be more that are kept.
    all_kept = (kept < count) | (_column(most, scores) <= count)
    whole = torch.where(all_kept, sums.gather(1, kept - 1), 1.0)
    draws = _column([row.draw for row in rows], scores)
    numbers = (sums <= draws * whole).sum(-1, keepdim=True)
    certain = all_kept | ((top_p == 1) & (min_p == 0) & (numbers < count))
    tokens: list[int] = ids.gather(1, torch.minimum(numbers, kept - 1))[:, 0].tolist()
    open_ones = [number for number, done in enumerate(certain[:, 0].tolist()) if not done]
    if open_ones:
        more = _drawn(scores[open_ones], [rows[number] for number in open_ones], count * 8)
        for number, token in zip(open_ones, more, strict=True):
            tokens[number] = token
    return tokens


def _total(scores: torch.Tensor, best: torch.Tensor, most: Sequence[int]) -> torch.Tensor:
    """Return the logarithm of the sum over the `most` likeliest tokens of each row, (rows, 1)."""
    size, count = scores.shape[1], best.shape[1]
    totals = [
        (
            scores[row]
            if limit == size
            else best[row, :limit]
            if limit <= count
            else scores[row].topk(limit)[0]
        )
        for row, limit in enumerate(most)
    ]
    return torch.stack([each.logsumexp(-1) for each in totals])[:, None]


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """Return one number for each row, (rows, 1)."""
    return torch.tensor(values, device=like.device)[:, None]
