"""One step of a causal model for any number of sequences, each in a place of the cache.

It runs through a graph that TorchScript has traced, where it can: at one row the Python of the layers takes
as long as half of the model.
"""

import inspect
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Final

import torch

from serve_app.decoders.attention import NAME, AttentionStep, masked_windows
from serve_app.decoders.grouping import rows_alone
from serve_app.decoders.kv_cache import KeyValueCache, affordable_places
from serve_app.decoders.sampling import choose
from serve_app.encoders.onednn import padded_tokens
from serve_app.engine.continuous.choice import Choice, Row
from serve_app.engine.continuous.continuation import Continuation
from serve_app.text import words

# No endpoint has more sequences in a batch; places that were never used take no memory.
MOST_PLACES: Final = 256
# No sequence is longer; a place of more tokens would only be address space.
MOST_TOKENS: Final = 32768

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


class UnsupportedModelError(Exception):
    """The model cannot be computed in steps."""


class DecoderSteps:
    """Computes steps of `model`, a causal model of transformers, whose attention is replaced."""

    def __init__(
        self, model: Any, max_tokens: int, places: int = MOST_PLACES, *, fills: bool = False
    ) -> None:
        """`fills` says whether to fill steps up to few numbers of tokens, for oneDNN's layers.

        Raises UnsupportedModelError if the layers do not attend through the function of attention.py.
        """
        self._fills = fills
        self.capacity = min(max_tokens, MOST_TOKENS, _tokens_of_one_rotation(model.config))
        taken = inspect.signature(model.forward).parameters
        if "position_ids" not in taken:
            raise UnsupportedModelError(f"{type(model).__name__} does not take the positions of its tokens")
        self._model = model
        self._compute = _Step(model, keeps="logits_to_keep" in taken)
        layers, heads, width = _dimensions(model)
        self.places = affordable_places(places, self.capacity * layers * 2 * heads * width, model)
        self._cache = KeyValueCache(
            self.places, layers, heads, self.capacity, width, model.dtype, model.device
        )
        self._traced: Any = None
        before = model.config._attn_implementation
        model.set_attn_implementation(NAME)
        try:
            self._require_attention(layers)
        except UnsupportedModelError:
            model.set_attn_implementation(before)
            raise

    @property
    def bytes_per_token(self) -> int:
        """How much memory the keys and values of one token take."""
        bytes_per_token: int = self._cache.bytes_per_token
        return bytes_per_token

    def trace(self) -> None:
        """Compile the steps; they stay in Python where TorchScript cannot."""
        # Specialising for the first shapes makes nothing here faster, and takes memory.
        torch._C._jit_set_profiling_mode(False)
        rows = [Row(place, 0, [0] * (1 + place), chooses=True) for place in range(min(3, self.places))]
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                arguments = self._arguments(rows)
                traced = torch.jit.trace(self._compute, arguments, check_trace=False)
                for few in (rows, rows[:1], rows[-1:]):
                    arguments = self._arguments(few)
                    computed = self._compute(*arguments)
                    torch.testing.assert_close(traced(*arguments), computed, rtol=1e-2, atol=1e-2)
                self._traced = traced
        except Exception as error:
            logger.info("the steps of the model stay in Python: %s", words(error))

    def step(self, rows: Sequence[Row]) -> list[Choice | None]:
        """Compute the rows, and return the chosen token of each that chooses one.

        Raises NotFiniteError, or what the model raises; the same rows may be computed again then.
        """
        choosing = [row for row in rows if row.chooses]
        with torch.inference_mode():
            logits = self.logits(rows)
            choices = iter(choose(logits, choosing) if choosing else ())
        return [next(choices) if row.chooses else None for row in rows]

    def logits(self, rows: Sequence[Row]) -> torch.Tensor:
        """Compute the rows, and return the logits of those that choose, (rows, vocabulary)."""
        compute = self._traced or self._compute
        logits: torch.Tensor = compute(*self._arguments(rows))
        return logits

    def generated(self, continuations: Sequence[Continuation]) -> list[torch.Tensor]:
        """Return what follows each prompt when as many as there are places are computed together.

        It is (tokens, 1 + vocabulary): each token, and the logits that it was chosen by, before any penalty.
        """
        groups = [continuations[at : at + self.places] for at in range(0, len(continuations), self.places)]
        return [each for group in groups for each in self._generated_together(group)]

    def _generated_together(self, continuations: Sequence[Continuation]) -> list[torch.Tensor]:
        ids = [list(each.prompt) for each in continuations]
        found: list[list[torch.Tensor]] = [[] for _ in continuations]
        computed = [0] * len(ids)
        running = list(range(len(ids)))
        while running:
            rows = [
                Row(
                    number,
                    computed[number],
                    ids[number][computed[number] :],
                    chooses=True,
                    sampling=replace(continuations[number].sampling, samples=False),
                    so_far=ids[number],
                    prompt=len(continuations[number].prompt),
                )
                for number in running
            ]
            with torch.inference_mode():
                logits = self.logits(rows)
                choices = choose(logits, rows)
            still = []
            for number, choice, row in zip(running, choices, logits.float().cpu(), strict=True):
                computed[number] = len(ids[number])
                ids[number].append(choice.token)
                found[number].append(torch.cat([torch.tensor([float(choice.token)]), row]))
                of = continuations[number]
                if choice.token not in of.ends and len(found[number]) < of.new_tokens:
                    still.append(number)
            running = still
        return [torch.stack(each) for each in found]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Let the sequence in place `target` begin with the first tokens of that in `source`."""
        self._cache.copy(source, target, tokens)

    def release(self, place: int, known: int = 0) -> None:
        """Give the memory of a place back, but that of its first `known` tokens."""
        self._cache.release(place, known)

    def _arguments(self, rows: Sequence[Row]) -> tuple[torch.Tensor, ...]:
        """Return what a step takes: ids, positions, whose logits, and the tensors of AttentionStep."""
        device = self._model.device
        single = sorted((row for row in rows if len(row.tokens) == 1), key=lambda row: row.place)
        ordered = [*single, *(row for row in rows if len(row.tokens) > 1)]
        places, lengths = [row.place for row in single], [row.begin + 1 for row in single]
        alone = rows_alone(places, lengths)
        together = sorted(set(range(len(single))) - set(alone))
        first = min((places[row] for row in together), default=0)
        count = max((places[row] for row in together), default=-1) + 1 - first
        longest = max((lengths[row] for row in together), default=1)
        last = dict(zip((row.place for row in ordered), _ends(ordered), strict=True))
        # The last one's logits are computed where nobody chooses; nothing is not an option.
        chosen = [last[row.place] for row in rows if row.chooses] or [max(last.values())]
        pieces = [[row.place, row.begin, row.begin + len(row.tokens)] for row in ordered[len(single) :]]
        ids = [token for row in ordered for token in row.tokens]
        positions = [row.begin + number for row in ordered for number in range(len(row.tokens))]
        # Any token at any position: nobody attends to it.
        filling = [0] * (padded_tokens(len(ids)) - len(ids)) if self._fills else []

        def numbers(values: list[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        return (
            numbers(ids + filling),
            numbers(positions + filling),
            numbers(chosen),
            self._cache.tensor,
            numbers(places),
            numbers([row.begin for row in single]),
            torch.tensor(first, device=device),
            torch.empty(max(count, 0), longest, device=device),
            numbers(alone),
            torch.tensor(pieces, dtype=torch.long).view(-1, 3),
        )

    def _require_attention(self, layers: int) -> None:
        """Raise UnsupportedModelError unless each layer calls the function of attention.py as it should."""
        masked_windows.clear()
        try:
            rows = [Row(0, 0, [0, 0], chooses=True), Row(1, 0, [0], chooses=True)]
            self.step(rows[: self.places])
        except Exception as error:
            raise UnsupportedModelError(f"{type(self._model).__name__}: {error}") from error
        attended, windows = self._compute.attended
        if attended != layers or layers != _stated_layers(self._model.config, layers):
            raise UnsupportedModelError(
                f"{type(self._model).__name__}: {attended} of {layers} layers attend as they are told"
            )
        # Some layers keep to a window, or to chunks, only by the mask.
        if masked_windows - windows - {0}:
            raise UnsupportedModelError(
                f"{type(self._model).__name__}: its layers do not say in which windows they attend"
            )


class _Step(torch.nn.Module):  # type: ignore[misc]
    """A step as a function of tensors, for TorchScript."""

    def __init__(self, model: Any, *, keeps: bool) -> None:
        """`keeps` says whether the model computes the logits of chosen tokens only, if it is asked to."""
        super().__init__()
        self.model = model
        self._keeps = keeps
        # How many layers have attended in the last step in Python, and in which windows.
        self.attended: tuple[int, set[int]] = 0, set()

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, chosen: torch.Tensor, *attention: torch.Tensor
    ) -> torch.Tensor:
        """(tokens,), (tokens,) and (chosen,) in, (chosen, vocabulary) out."""
        step = AttentionStep(*attention)
        options = {"logits_to_keep": chosen} if self._keeps else {}
        logits: torch.Tensor = self.model(
            input_ids=ids[None], position_ids=positions[None], use_cache=False, step=step, **options
        ).logits[0]
        self.attended = step.layers, step.windows
        return logits if self._keeps else logits[chosen]


def _ends(rows: Sequence[Row]) -> list[int]:
    """Return the number of each row's last token among the tokens of all rows."""
    return [end - 1 for end in accumulate(len(row.tokens) for row in rows)]


def _stated_layers(config: Any, default: int) -> int:
    return int(getattr(config.get_text_config(), "num_hidden_layers", None) or default)


def _tokens_of_one_rotation(config: Any) -> int:
    """Return up to which length positions are rotated alike; LongRoPE does it otherwise for longer sequences.

    Then one of them would change the others of its step, and its own first tokens are in the cache.
    """
    stated = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [stated, *(each for each in stated.values() if isinstance(each, dict))]
    long = [each for each in kinds if each.get("rope_type") == "longrope"]
    return min((int(each["original_max_position_embeddings"]) for each in long), default=MOST_TOKENS)


def _dimensions(model: Any) -> tuple[int, int, int]:
    """Return the number of layers, that of heads of keys and values in each, and the width of a head."""
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    try:
        with torch.inference_mode():
            layers = model(input_ids=ids, use_cache=True).past_key_values.layers
        shapes = {tuple(tensor.shape) for layer in layers for tensor in (layer.keys, layer.values)}
        [(_, heads, _, width)] = shapes
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not keep keys and values of one size in every layer"
        ) from error
    return len(layers), heads, width
