"""From a text to the tokenizer's lists, within a limit.

A fast tokenizer is called in the tokenizers library itself. transformers' call around it takes twice as long,
and it stores the limit in the tokenizer, so that it is not thread-safe.
"""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

import tokenizers
from tokenizers import Encoding

from serve_app.engine.base import InputLimit

# A text of more characters for each token of the limit is looked at in parts, which may cost seconds
# otherwise. The last tokens of a part may be others than in the whole text.
_CHARACTERS: Final = 8
_UNSURE_TOKENS: Final = 16

# Which text of a pair is truncated; "longest" takes from both until they fit.
Cut = Literal["first", "second", "longest"]
_TRANSFORMERS_NAMES: Final = {"first": "only_first", "second": "only_second", "longest": "longest_first"}


@dataclass(frozen=True)
class Tokenizer:
    """Encodes texts with a tokenizer of transformers."""

    hf_tokenizer: Any

    def __post_init__(self) -> None:
        if self.thread_safe:
            # Drop the padding and truncation that its file states; transformers' call sets both each time.
            self.hf_tokenizer.backend_tokenizer.no_padding()
            self.hf_tokenizer.backend_tokenizer.no_truncation()

    @property
    def thread_safe(self) -> bool:
        """Whether several threads may use it at once."""
        return bool(self.hf_tokenizer.is_fast)

    @cached_property
    def _unfinished(self) -> tokenizers.Tokenizer:
        """The tokenizer without its last step, which moves the places of tokens each time that it runs."""
        return copy_of(self.hf_tokenizer.backend_tokenizer, finishes=False)

    def encode(
        self, text: str, limit: InputLimit, pair: str | None = None, cut: Cut = "first"
    ) -> dict[str, list[int]]:
        """Return the model's inputs for `text`, or for a pair; `cut` says which of both is truncated.

        Raises InputTooLongError, also if the limit leaves no room for any token of the text.
        """
        kept = replace(limit, truncate=False)
        text = self.within_reach(text, limit if cut != "second" else kept)
        if pair is not None:
            pair = self.within_reach(pair, limit if cut != "first" else kept)
        if not self.thread_safe:
            return self._encode_slow(text, limit, pair, cut)
        return self.lists(self.encoding(text, limit, pair, cut))

    def lists(self, encoding: Encoding) -> dict[str, list[int]]:
        """Return what the tokenizer gives to a model, by name."""
        found = {"token_type_ids": encoding.type_ids, "attention_mask": encoding.attention_mask}
        names = self.hf_tokenizer.model_input_names
        return {"input_ids": encoding.ids} | {name: found[name] for name in found if name in names}

    def within_reach(self, text: str, limit: InputLimit) -> str:
        """Return as much of `text` as has more tokens than the limit; all of it unless it is very long.

        Raises InputTooLongError if so long a text is refused.
        """
        size = _CHARACTERS * limit.max_tokens
        while size < len(text):
            part = text[-size:] if self.hf_tokenizer.truncation_side == "left" else text[:size]
            # transformers' own call changes the tokenizer, which other threads may be using.
            tokenizer = self.hf_tokenizer.backend_tokenizer if self.thread_safe else self.hf_tokenizer
            length = len(tokenizer.encode(part, add_special_tokens=False))
            if length > limit.max_tokens + _UNSURE_TOKENS:
                limit.check(length, at_least=True)
                return part
            size *= 4
        return text

    def encoding(self, text: str, limit: InputLimit, pair: str | None = None, cut: Cut = "first") -> Encoding:
        """Return the tokenizers library's own result, which also has words and offsets; fast ones only."""
        backend = self.hf_tokenizer.backend_tokenizer
        whole: Encoding = backend.encode(text, pair)
        limit.check(len(whole))
        if len(whole) <= limit.max_tokens:
            return whole
        first = self._unfinished.encode(text, add_special_tokens=False)
        second = None if pair is None else self._unfinished.encode(pair, add_special_tokens=False)
        room = limit.max_tokens - backend.num_special_tokens_to_add(pair is not None)
        sizes = _sizes(room, len(first), len(second or ()), cut)
        if min(sizes) < (pair is not None) or sizes[0] < 1:
            replace(limit, truncate=False).check(len(whole))
        first.truncate(sizes[0], direction=self.hf_tokenizer.truncation_side)
        if second is not None:
            second.truncate(sizes[1], direction=self.hf_tokenizer.truncation_side)
        both: Encoding = backend.post_process(first, second)
        return both

    def _encode_slow(self, text: str, limit: InputLimit, pair: str | None, cut: Cut) -> dict[str, list[int]]:
        encoded = self.hf_tokenizer(text, pair)
        limit.check(len(encoded["input_ids"]))
        if len(encoded["input_ids"]) > limit.max_tokens:
            way = _TRANSFORMERS_NAMES[cut] if pair is not None else True
            encoded = self.hf_tokenizer(text, pair, truncation=way, max_length=limit.max_tokens)
        return {name: list(values) for name, values in encoded.items()}


def copy_of(backend: tokenizers.Tokenizer, *, finishes: bool = True) -> tokenizers.Tokenizer:
    """Return a tokenizer that does the same, without truncation and padding.

    Unless it `finishes`, it also lacks the post-processor, which adds special tokens and trims places.
    """
    copy = tokenizers.Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", *(["post_processor"] if finishes else [])):
        if getattr(backend, part) is not None:
            setattr(copy, part, getattr(backend, part))
    copy.encode_special_tokens = backend.encode_special_tokens
    added = backend.get_added_tokens_decoder()
    for number in sorted(added):
        add = copy.add_special_tokens if added[number].special else copy.add_tokens
        add([added[number]])
    if {number: str(token) for number, token in copy.get_added_tokens_decoder().items()} == {
        number: str(token) for number, token in added.items()
    }:
        return copy
    # Their numbers have gaps, so this one has a vocabulary of its own.
    whole = json.loads(backend.to_str())
    copy = tokenizers.Tokenizer.from_str(json.dumps(whole if finishes else {**whole, "post_processor": None}))
    copy.no_padding()
    copy.no_truncation()
    return copy


def _sizes(room: int, first: int, second: int, cut: Cut) -> tuple[int, int]:
    """Return how many tokens of two texts are kept in `room`; not positive where one does not fit.

    "longest" is the rule of the tokenizers library, and so of the pipelines of transformers.
    """
    if cut == "first":
        return room - second, second
    if cut == "second":
        return first, room - first
    shorter = min(first, second, room // 2)
    longer = room - shorter
    return (longer, shorter) if first > second else (shorter, longer)
