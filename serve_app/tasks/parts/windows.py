"""A question and its context as sequences for the model: windows of the context that overlap.

The windows are those of QuestionAnsweringPipeline in transformers 4.57, for fast tokenizers.
"""

from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from serve_app.contract import MAX_TOKENS_PER_REQUEST
from serve_app.engine.base import EncodedSequence, InputLimit, TextPair
from serve_app.http.errors import InvalidInputError
from serve_app.loading.tokenizer import copy_of
from serve_app.loading.transformers_model import TransformersModel
from serve_app.parameters import MAX_WINDOW_TOKENS, QuestionAnsweringParameters

# Defaults, in tokens.
_WINDOW: Final = 384
_STRIDE: Final = 128


@dataclass(frozen=True)
class Window(EncodedSequence):
    """One window; `encoding` has the places of its tokens in the texts, which the model does not need."""

    encoding: Encoding | None = None
    # Which tokens may be in an answer: (tokens,).
    allowed: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Size:
    """How long windows are, and how many tokens of the context two of them share; both in tokens."""

    window: int
    stride: int | None

    @classmethod
    def of(cls, parameters: QuestionAnsweringParameters, limit: InputLimit) -> "Size":
        """Return what the parameters say; raise InvalidInputError if a sequence may not be so long."""
        asked = parameters.max_seq_len
        if asked is not None and asked > limit.max_tokens:
            raise InvalidInputError(
                f"parameters.max_seq_len: got {asked}; this endpoint takes {limit.max_tokens} tokens",
                limit=limit.max_tokens,
            )
        return cls(asked or min(limit.max_tokens, _WINDOW), parameters.doc_stride)

    @classmethod
    def largest(cls, max_tokens: int) -> "Size":
        """Return the size with which a model is proved."""
        return cls(min(max_tokens, MAX_WINDOW_TOKENS), None)

    def stride_in(self, room: int) -> int:
        """Return how much two windows share if each has `room` tokens of the context.

        Raises InvalidInputError if that is all of them, or if there is no room.
        """
        if room < 1:
            raise InvalidInputError(
                f"the question leaves no room for the context in a window of {self.window} tokens; shorten "
                "it, or give a larger parameters.max_seq_len",
                limit=self.window,
            )
        if self.stride is None:
            return min(self.window // 2, _STRIDE, room - 1)
        if self.stride >= room:
            raise InvalidInputError(
                f"parameters.doc_stride: got {self.stride}; beside this question, a window has {room} tokens "
                "of the context, and doc_stride must be less",
                limit=room - 1,
            )
        return self.stride


def question_first(tokenizer: Any) -> bool:
    """Return whether the model reads the question before its context."""
    return bool(tokenizer.padding_side == "right")


class Splitter:
    """Splits contexts with a tokenizer of its own, which shares the vocabulary with the model's.

    The library's truncation makes windows, and it is a setting of the tokenizer, which other threads use.
    """

    def __init__(self, model: TransformersModel) -> None:
        self._model = model
        self._own = copy_of(model.hf_tokenizer.backend_tokenizer)
        self._lock = Lock()

    def windows(self, pair: TextPair, size: Size) -> list[Window]:
        """Return the windows of the context, `pair.second`, each with the whole question, `pair.first`.

        Raises InvalidInputError for a question that is too long, and for windows that are too many.
        """
        tokenizer = self._model.hf_tokenizer
        first = question_first(tokenizer)
        texts = (pair.first, pair.second) if first else (pair.second, pair.first)
        with self._lock:
            whole = self._own.encode(*texts)
            if len(whole) > size.window:
                tokens = whole.sequence_ids.count(int(first))
                room = size.window - (len(whole) - tokens)
                stride = size.stride_in(room)
                _require_affordable(tokens, room, stride, size.window)
                self._own.enable_truncation(
                    size.window,
                    stride=stride,
                    strategy="only_second" if first else "only_first",
                    direction=tokenizer.truncation_side,
                )
                whole = self._own.encode(*texts)
                self._own.no_truncation()
        return [_window(self._model, encoding) for encoding in (whole, *whole.overflowing)]


def _require_affordable(tokens: int, room: int, stride: int, window: int) -> None:
    """Raise InvalidInputError if the windows of so many tokens of a context are too much for one request."""
    count = 1 + -((room - tokens) // (room - stride))
    if count * window > MAX_TOKENS_PER_REQUEST:
        raise InvalidInputError(
            f"the context becomes {count} windows of {window} tokens, and a request may have "
            f"{MAX_TOKENS_PER_REQUEST} tokens; shorten it, or give a lower parameters.doc_stride",
            limit=MAX_TOKENS_PER_REQUEST,
        )


def _window(model: TransformersModel, encoding: Encoding) -> Window:
    tokenizer = model.hf_tokenizer
    if question_first(tokenizer):
        allowed = np.asarray([which == 1 for which in encoding.sequence_ids])
    else:
        # The pipeline of transformers 4 masks nothing if the question comes last.
        allowed = np.ones(len(encoding), dtype=bool)
    if tokenizer.cls_token_id is not None:
        # Some models point at this token if there is no answer.
        allowed |= np.asarray(encoding.ids) == tokenizer.cls_token_id
    return Window(model.features(model.tokenizer.lists(encoding)), encoding=encoding, allowed=allowed)
