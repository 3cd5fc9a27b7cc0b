"""Attention of a step: each row looks at the keys and values in its place of the cache.

    step ──> rows of one token ──> together: one operation over a range of places, masked
      │                        └─> alone: one operation each
      └────> pieces of prompts ──> one operation each, causal

The layers are those of transformers, which let a function take the place of their attention
(transformers.AttentionInterface). All rows and pieces of a step are one sequence for them, (1, tokens);
other tokens may follow, which attend to nothing.

What depends on numbers of rows, pieces or tokens is in compiled functions, so that one traced graph of the
model has it for every step. Sizes are asked for there, too: in a traced graph others would be tensors.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from serve_app.encoders.torchscript import compiled

NAME: Final = "model_endpoints_steps"

# Where a processor has AMX, torch compiles attention in half dtypes for each number of queries with each
# number of keys, and keeps it for ever. So a piece is filled up to multiples of these, in its attention only.
_HAS_AMX: Final = bool(torch.cpu.get_capabilities().get("amx_bf16"))
_QUERIES: Final = 32 if _HAS_AMX else 1
_KEYS: Final = 64 if _HAS_AMX else 1


class UnsupportedAttentionError(Exception):
    """The layer needs an attention that this module does not have."""


@dataclass
class AttentionStep:
    """What the layers of one step need; the tokens of the rows come first, then those of the pieces.

    `cache` is (places, layers, 2, heads, capacity, width). `places` and `positions` have one number for each
    row, in the order of the places. Rows attend together in the places from `first` on: in as many of them,
    and up to as many tokens, as `span` has rows and columns; its values are never read. `alone` has the
    numbers of rows that attend alone. `pieces` is (pieces, 3), in the processor's memory: a place, and from
    which of its tokens to which a piece goes.
    """

    cache: torch.Tensor
    places: torch.Tensor
    positions: torch.Tensor
    first: torch.Tensor
    span: torch.Tensor
    alone: torch.Tensor
    pieces: torch.Tensor
    # How many layers have attended, and in which windows.
    layers: int = 0
    windows: set[int] = field(default_factory=set)
    # What is the same in all layers, or in those of the same window.
    masks: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    vectors: torch.Tensor | None = None

    def masks_of(self, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what to add to the scores: of the range of places, and of all pieces; `window` 0 is none.

        The former is (range, 1, 1, longest). The latter has (queries, keys) of each piece, one after another.
        """
        if window not in self.masks:
            rows = _mask_of_rows(self.cache, self.span, self.first, self.places, self.positions, window)
            self.masks[window] = rows, _mask_of_pieces(self.cache, self.pieces, window)
        return self.masks[window]

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
    window = sliding_window or 0
    step.layers += 1
    step.windows.add(window)
    mask, mask_of_pieces = step.masks_of(window)
    attended = _attend_tokens(
        query,
        key,
        value,
        step.cache,
        step.first_vectors(),
        step.places,
        step.positions,
        step.first,
        step.alone,
        mask,
        step.pieces,
        mask_of_pieces,
        module.layer_idx,
        window,
        scaling if scaling is not None else query.shape[-1] ** -0.5,
        softcap or 0.0,
    )
    return attended, None


def _no_mask(*arguments: Any, **options: Any) -> None:
    """Make no mask, because `_attend` decides which token sees which; note for which window one was asked."""
    masked_windows.add(options.get("local_size") or 0)


# Those of all masks that models have asked for: of sliding windows, and of chunks.
masked_windows: Final[set[int]] = set()
AttentionInterface.register(NAME, _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)


@compiled
def _first_vectors(cache: torch.Tensor, places: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return where the first layer stores one token of each place: (rows * 2 * heads,) numbers of vectors."""
    layers, kinds, heads, capacity = cache.shape[1], cache.shape[2], cache.shape[3], cache.shape[4]
    own = torch.arange(kinds * heads, device=cache.device)
    places = places.unsqueeze(1) * (layers * kinds * heads)
    return ((places + own) * capacity + positions.unsqueeze(1)).reshape(-1)


@compiled
def _added(seen: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return what leaves the scores that are seen as they are, and makes nothing of the others."""
    zeros = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill(seen.logical_not(), float("-inf"))


@compiled
def _mask_of_rows(
    cache: torch.Tensor,
    span: torch.Tensor,
    first: torch.Tensor,
    places: torch.Tensor,
    positions: torch.Tensor,
    window: int,
) -> torch.Tensor:
    """`span` is (range, longest), of any numbers; places without a row see their first token only."""
    last = torch.zeros(span.shape[0], dtype=torch.long, device=places.device)
    inside = (places >= first) & (places < first + span.shape[0])
    last.index_put_([(places - first)[inside]], positions[inside])
    # A row that attends alone may be longer.
    last = last.clamp(max=span.shape[1] - 1).unsqueeze(1)
    columns = torch.arange(span.shape[1], device=places.device).unsqueeze(0)
    seen = columns <= last
    if window > 0:
        seen = seen & (columns > last - window)
    return _added(seen, cache).unsqueeze(1).unsqueeze(1)


@compiled
def _size_of_piece(
    cache: torch.Tensor, begin: int, end: int, queries: int = _QUERIES, keys: int = _KEYS
) -> tuple[int, int]:
    """Return with how many queries and keys the tokens from `begin` to `end` of a place attend.

    The last two are arguments, because TorchScript knows no other numbers of this module.
    """
    tokens = end - begin
    if cache.dtype == torch.float32 or cache.is_cuda:
        return tokens, end
    filled_keys = (end + keys - 1) // keys * keys
    return (tokens + queries - 1) // queries * queries, min(filled_keys, cache.size(-2))


@compiled
def _mask_of_pieces(cache: torch.Tensor, pieces: torch.Tensor, window: int) -> torch.Tensor:
    masks = [cache.new_zeros([0])]
    numbers: list[list[int]] = pieces.tolist()
    for _, begin, end in numbers:
        queries, keys = _size_of_piece(cache, begin, end)
        # Those that fill the piece up see something too, and nobody sees what they get.
        positions = torch.arange(begin, begin + queries, device=cache.device).clamp(max=end - 1).unsqueeze(1)
        columns = torch.arange(keys, device=cache.device).unsqueeze(0)
        seen = columns <= positions
        if window > 0:
            seen = seen & (columns > positions - window)
        masks.append(_added(seen, cache).reshape(-1))
    return torch.cat(masks)


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


@compiled
def _attend_piece(
    query: torch.Tensor,
    keys_values: torch.Tensor,
    own: torch.Tensor,
    begin: int,
    mask: torch.Tensor,
    scale: float,
    cap: float,
) -> torch.Tensor:
    """Store the keys and values of a piece in its place `own`; return what its tokens attend to.

    `query` is (tokens, groups, heads of each, width), `keys_values` (tokens, 2, groups, width), `own`
    (2, groups, capacity, width), `mask` (queries, keys): at least as many as there are tokens.
    """
    tokens, groups, each, width = query.shape
    own.narrow(2, begin, tokens).copy_(keys_values.permute(1, 2, 0, 3))
    queries, keys = mask.shape
    end = begin + tokens
    if keys > end:
        # A mask does not hide what is no number, and an earlier sequence may have left that.
        own.narrow(2, end, keys - end).zero_()
    if queries > tokens:
        query = pad(query, [0, 0, 0, 0, 0, 0, 0, queries - tokens])
    attended = _weighted(
        query.permute(1, 2, 0, 3).reshape(1, groups, each * queries, width),
        own.select(0, 0).narrow(1, 0, keys).unsqueeze(0),
        own.select(0, 1).narrow(1, 0, keys).unsqueeze(0),
        mask.repeat(each, 1),
        scale,
        cap,
    )
    return attended.view(groups, each, queries, width).narrow(2, 0, tokens).permute(2, 0, 1, 3)


@compiled
def _attend_pieces(
    queries: torch.Tensor,
    keys_values: torch.Tensor,
    cache: torch.Tensor,
    pieces: torch.Tensor,
    masks: torch.Tensor,
    scale: float,
    cap: float,
) -> torch.Tensor:
    """Return what the tokens of all pieces attend to; `masks` are as in AttentionStep."""
    attended: list[torch.Tensor] = []
    numbers: list[list[int]] = pieces.tolist()
    token, number = 0, 0
    for place, begin, end in numbers:
        count = end - begin
        rows, columns = _size_of_piece(cache, begin, end)
        mask = masks.narrow(0, number, rows * columns).view(rows, columns)
        query, own = queries.narrow(0, token, count), keys_values.narrow(0, token, count)
        attended.append(_attend_piece(query, own, cache[place], begin, mask, scale, cap))
        token, number = token + count, number + rows * columns
    return torch.cat(attended)


@compiled
def _with_fillers(attended: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return `attended` with zeros for what fills the step up to so many tokens, and attends to nothing."""
    missing = tokens - attended.shape[0]
    return pad(attended, [0, 0, 0, 0, 0, 0, 0, missing]) if missing > 0 else attended


@compiled
def _attend_tokens(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    all_layers: torch.Tensor,
    first_vectors: torch.Tensor,
    places: torch.Tensor,
    positions: torch.Tensor,
    first: torch.Tensor,
    alone: torch.Tensor,
    mask: torch.Tensor,
    pieces: torch.Tensor,
    mask_of_pieces: torch.Tensor,
    layer: int,
    window: int,
    scale: float,
    cap: float,
) -> torch.Tensor:
    """Return what all tokens of a step attend to in one layer, (1, tokens, heads, width).

    Query, keys and values are (1, heads, tokens, width). A `window` of 0 is none, and a `cap` of 0 leaves the
    scores as they are; the others are those of AttentionStep.
    """
    groups, rows = key.shape[1], places.shape[0]
    # (tokens, groups, heads of each, width)
    queries = query[0].transpose(0, 1).unflatten(1, [groups, query.shape[1] // groups])
    # (tokens, 2, groups, width)
    keys_values = torch.stack([key[0], value[0]]).permute(2, 0, 1, 3)
    cache = _store(all_layers, first_vectors, keys_values[:rows], layer)
    own = queries[:rows]
    attended = _attend_together(own, cache, places, first, alone, mask, scale, cap)
    attended = _attend_alone(attended, own, cache, places, positions, alone, window, scale, cap)
    if pieces.shape[0] > 0:
        of_pieces = _attend_pieces(
            queries[rows:], keys_values[rows:], cache, pieces, mask_of_pieces, scale, cap
        )
        attended = torch.cat([attended, of_pieces])
    return _with_fillers(attended, queries.shape[0]).flatten(1, 2).unsqueeze(0)
