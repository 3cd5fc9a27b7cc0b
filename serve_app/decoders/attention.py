"""Attention of a step: each row looks at the keys and values in its place of the cache.

    step ──> rows of one token ──> together: one operation over a range of places, masked
      │                        └─> alone: one operation each
      └────> pieces of prompts ──> one operation each, causal

The layers are those of transformers, which let a function take the place of their attention
(transformers.AttentionInterface). All rows and pieces of a step are one sequence for them, (1, tokens).
"""

from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from serve_app.encoders.torchscript import compiled

NAME: Final = "model_endpoints_steps"


class UnsupportedAttentionError(Exception):
    """The layer needs an attention that this module does not have."""


@dataclass(frozen=True)
class Piece:
    """Part of a prompt: tokens from `begin` to `end` of the sequence in `place`."""

    place: int
    begin: int
    end: int


@dataclass(frozen=True)
class Layer:
    """What attention needs of a layer: its number, its part of the cache, and how it attends.

    `cache` is (places, 2, heads, capacity, width). A `window` of 0 is none, and a `cap` of 0 leaves the
    scores as they are.
    """

    number: int
    cache: torch.Tensor
    window: int
    scale: float
    cap: float

    @property
    def way(self) -> tuple[int, float, float]:
        return self.window, self.scale, self.cap


@dataclass
class AttentionStep:
    """What the layers of one step need; the tokens of `rows` come first, then those of the pieces.

    `cache` is (places, layers, 2, heads, capacity, width). `places` and `positions` have one number for each
    row, in the order of the places. Rows attend together in the places from `first` on: in as many of them,
    and up to as many tokens, as `span` has rows and columns; its values are never read. `alone` has the
    numbers of rows that attend alone.
    """

    cache: torch.Tensor
    places: torch.Tensor
    positions: torch.Tensor
    first: torch.Tensor
    span: torch.Tensor
    alone: torch.Tensor
    pieces: tuple[Piece, ...] = ()
    # How many layers have attended, and in which windows.
    layers: int = 0
    windows: set[int] = field(default_factory=set)
    # What is the same in all layers, or in those of the same window.
    masks: dict[tuple[int, Piece | None], torch.Tensor] = field(default_factory=dict)
    vectors: torch.Tensor | None = None

    def mask(self, window: int) -> torch.Tensor:
        """Return what to add to the scores of each place of the range, (range, 1, 1, longest)."""
        key = window, None
        if key not in self.masks:
            seen = _seen(self.span, self.first, self.places, self.positions, window)
            self.masks[key] = _added(seen, self.cache)
        return self.masks[key]

    def mask_of(self, piece: Piece, window: int) -> torch.Tensor:
        """Return what to add to the scores of each token of a piece, (tokens, end of the piece)."""
        key = window, piece
        if key not in self.masks:
            positions = torch.arange(piece.begin, piece.end, device=self.cache.device)[:, None]
            columns = torch.arange(piece.end, device=self.cache.device)[None]
            seen = columns <= positions
            if window:
                seen &= columns > positions - window
            self.masks[key] = _added(seen, self.cache)
        return self.masks[key]

    def first_vectors(self) -> torch.Tensor:
        """Return where in the cache the first layer stores the rows' keys and values: numbers of vectors."""
        if self.vectors is None:
            self.vectors = _first_vectors(self.cache, self.places, self.positions)
        return self.vectors


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    step: AttentionStep | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Return (1, tokens, heads, width) for a query of (1, heads, tokens, width), as transformers calls it."""
    if step is None or others.get("s_aux") is not None or others.get("position_bias") is not None:
        raise UnsupportedAttentionError(f"{type(module).__name__} has an attention that is not known here")
    step.layers += 1
    step.windows.add(sliding_window or 0)
    layer = Layer(
        module.layer_idx,
        step.cache[:, module.layer_idx],
        sliding_window or 0,
        scaling if scaling is not None else query.shape[-1] ** -0.5,
        softcap or 0.0,
    )
    queries, keys_values = _by_tokens(query, key, value)
    if not step.pieces:
        return _as_transformers(_attend_rows(layer, queries, keys_values, step)), None
    rows = step.places.shape[0]
    parts = [_attend_rows(layer, queries[:rows], keys_values[:rows], step)] if rows else []
    begin = rows
    for piece in step.pieces:
        end = begin + piece.end - piece.begin
        parts.append(_attend_piece(layer, queries[begin:end], keys_values[begin:end], step, piece))
        begin = end
    return _as_transformers(torch.cat(parts)), None


def _no_mask(*arguments: Any, **options: Any) -> None:
    """Make no mask, because `_attend` decides which token sees which; note for which window one was asked."""
    masked_windows.add(options.get("local_size") or 0)


# Those of all masks that models have asked for: of sliding windows, and of chunks.
masked_windows: Final[set[int]] = set()
AttentionInterface.register(NAME, _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)


# In a traced graph, a size that a compiled function asks for costs nothing; others are tensors.
@compiled
def _by_tokens(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (tokens, heads of keys, heads of queries for each, width) and (tokens, 2, heads of keys, width).

    What transformers gives is (1, heads, tokens, width) each.
    """
    groups = key.shape[1]
    queries = query[0].transpose(0, 1).unflatten(1, [groups, query.shape[1] // groups])
    return queries, torch.stack([key[0], value[0]]).permute(2, 0, 1, 3)


@compiled
def _as_transformers(attended: torch.Tensor) -> torch.Tensor:
    """Return (1, tokens, heads, width)."""
    return attended.flatten(1, 2).unsqueeze(0)


@compiled
def _added(seen: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return what leaves the scores that are seen as they are, and makes nothing of the others."""
    return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill(
        seen.logical_not(), float("-inf")
    )


@compiled
def _first_vectors(cache: torch.Tensor, places: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return where the first layer stores one token of each place: (rows * 2 * heads,) numbers of vectors."""
    layers, kinds, heads, capacity = cache.shape[1], cache.shape[2], cache.shape[3], cache.shape[4]
    own = torch.arange(kinds * heads, device=cache.device)
    places = places.unsqueeze(1) * (layers * kinds * heads)
    return ((places + own) * capacity + positions.unsqueeze(1)).reshape(-1)


@compiled
def _seen(
    span: torch.Tensor, first: torch.Tensor, places: torch.Tensor, positions: torch.Tensor, window: int
) -> torch.Tensor:
    """Return what each place of the range sees, (range, 1, 1, longest) of bool; `window` 0 is all.

    `span` is (range, longest), of any numbers; places without a row see their first token only.
    """
    last = torch.zeros(span.shape[0], dtype=torch.long, device=places.device)
    inside = (places >= first) & (places < first + span.shape[0])
    last.index_put_([(places - first)[inside]], positions[inside])
    # A row that attends alone may be longer.
    last = last.clamp(max=span.shape[1] - 1).unsqueeze(1)
    columns = torch.arange(span.shape[1], device=places.device).unsqueeze(0)
    seen = columns <= last
    if window > 0:
        seen = seen & (columns > last - window)
    return seen.unsqueeze(1).unsqueeze(1)


@compiled
def _weighted(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    cap: float,
) -> torch.Tensor:
    """Return attention of (…, queries, width); with `cap`, of scores that stay below it (Gemma 2)."""
    if cap == 0.0:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    scores = cap * torch.tanh(torch.matmul(query, key.transpose(-1, -2)) * scale / cap)
    if mask is not None:
        scores = scores + mask
    return torch.matmul(torch.softmax(scores.float(), -1).to(value.dtype), value)


@compiled
def _store(
    all_layers: torch.Tensor, first_vectors: torch.Tensor, keys_values: torch.Tensor, layer: int
) -> torch.Tensor:
    """Store keys and values, (rows, 2, groups, width); return the layer's part of the cache."""
    _, _, kinds, heads, capacity, width = all_layers.shape
    vectors = first_vectors + layer * kinds * heads * capacity
    all_layers.view(-1, width).index_copy_(0, vectors, keys_values.reshape(-1, width))
    return all_layers.select(1, layer)


@compiled
def _attend_together(
    queries: torch.Tensor,
    cache: torch.Tensor,
    places: torch.Tensor,
    first: torch.Tensor,
    alone: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    cap: float,
) -> torch.Tensor:
    """Return what (rows, groups, heads of each, width) attend to in the range of places from `first` on.

    Rows whose places are outside the range get any numbers.
    """
    count, longest = mask.shape[0], mask.shape[-1]
    # The rows are in the order of their places.
    every_place = alone.shape[0] == 0 and queries.shape[0] == count
    if count == 0:
        return queries
    own = cache.narrow(0, int(first), count)
    keys = own.select(1, 0).narrow(2, 0, longest)
    values = own.select(1, 1).narrow(2, 0, longest)
    if every_place:
        return _weighted(queries, keys, values, mask, scale, cap)
    together = queries.new_zeros([count, queries.shape[1], queries.shape[2], queries.shape[3]])
    inside = (places >= first) & (places < first + count)
    rows = (places - first).clamp(0, count - 1)
    together.index_put_([rows[inside]], queries[inside])
    return _weighted(together, keys, values, mask, scale, cap).index_select(0, rows)


@compiled
def _attend_alone(
    attended: torch.Tensor,
    queries: torch.Tensor,
    cache: torch.Tensor,
    places: torch.Tensor,
    positions: torch.Tensor,
    alone: torch.Tensor,
    window: int,
    scale: float,
    cap: float,
) -> torch.Tensor:
    """Return `attended` with what the rows `alone` attend to, each by itself."""
    if alone.shape[0] == 0:
        return attended
    attended = attended.clone()
    numbers: list[list[int]] = torch.stack([alone, places[alone], positions[alone] + 1], 1).tolist()
    for row, place, length in numbers:
        begin = max(0, length - window) if window > 0 else 0
        keys = cache[place, 0].narrow(1, begin, length - begin).unsqueeze(0)
        values = cache[place, 1].narrow(1, begin, length - begin).unsqueeze(0)
        attended[row] = _weighted(queries[row].unsqueeze(0), keys, values, None, scale, cap)[0]
    return attended


def _attend_rows(
    layer: Layer, queries: torch.Tensor, keys_values: torch.Tensor, step: AttentionStep
) -> torch.Tensor:
    """Store the keys and values of the rows, and return what they attend to; shapes as above."""
    places, positions, (window, scale, cap) = step.places, step.positions, layer.way
    cache = _store(step.cache, step.first_vectors(), keys_values, layer.number)
    mask = step.mask(window)
    attended = _attend_together(queries, cache, places, step.first, step.alone, mask, scale, cap)
    return _attend_alone(attended, queries, cache, places, positions, step.alone, window, scale, cap)


def _attend_piece(
    layer: Layer, queries: torch.Tensor, keys_values: torch.Tensor, step: AttentionStep, piece: Piece
) -> torch.Tensor:
    """Store the keys and values of a piece, and return what its tokens attend to; shapes as above."""
    tokens, groups, each, width = queries.shape
    own = layer.cache[piece.place]
    own[:, :, piece.begin : piece.end] = keys_values.permute(1, 2, 0, 3)
    attended = _weighted(
        queries.permute(1, 2, 0, 3).reshape(1, groups, each * tokens, width),
        own[None, 0, :, : piece.end],
        own[None, 1, :, : piece.end],
        step.mask_of(piece, layer.window).repeat(each, 1),
        layer.scale,
        layer.cap,
    )
    return attended.view(groups, each, tokens, width).permute(2, 0, 1, 3)
