"""What every task offers to the engine: encode a text, run sequences, decode the outputs.

Imports neither torch nor transformers, so that the engine and its tests need neither.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from serve_app.contract import Dtype, ModelArgs, ParameterValue
from serve_app.http.errors import InputTooLongError

# JSON-ready answer for one text; its keys are the names in the task's `outputs`.
Prediction = dict[str, Any]


class ModelLoadError(Exception):
    """A folder that does not hold a model for the task."""


@dataclass(frozen=True)
class Output:
    """One member of a prediction, as the Open Inference Protocol declares it.

    BYTES members that are not text travel as JSON. A dimension of -1 is open; the first is the batch.
    """

    name: str
    datatype: Literal["BYTES", "FP32"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class InputLimit:
    """How many tokens one sequence may have, and what happens to a longer one."""

    max_tokens: int
    truncate: bool

    def check(self, length: int) -> None:
        """Raise InputTooLongError if a sequence of `length` tokens is refused."""
        if length > self.max_tokens and not self.truncate:
            raise InputTooLongError(
                f"the text has {length} tokens and this endpoint takes {self.max_tokens}; "
                "shorten it, or set limits.truncateInput on the endpoint",
                length=length,
                limit=self.max_tokens,
            )


@dataclass(frozen=True)
class EncodedSequence:
    """One sequence for the model: the tokenizer's lists by name, each `length` long."""

    features: Mapping[str, list[int]]
    group: Hashable = None

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.features["input_ids"])


class Progress:
    """How a long forward pass reports that it lives and learns that nobody waits for it."""

    def __init__(self, outputs: Sequence[asyncio.Future[Any]]) -> None:
        self._outputs = outputs
        self.size = len(outputs)
        self.last = time.monotonic()

    def tick(self) -> bool:
        """Note a step forward; return whether anybody still waits for the result."""
        self.last = time.monotonic()
        return not all(output.done() for output in self._outputs)


class TaskModel(ABC):
    """A loaded model with the code of its task.

    `encode` and `decode` run in a thread of their own, never twice at once, unless `encodes_inline`;
    `forward` in others, as often at once as `batches_at_once` says.
    """

    outputs: ClassVar[tuple[Output, ...]]
    # A tiny request that warms the model up and shows that it works.
    warmup_parameters: ClassVar[Mapping[str, ParameterValue]] = {}

    @abstractmethod
    def __init__(self, folder: Path, dtype: Dtype) -> None:
        """Load the model in `folder`; raise ModelLoadError if it is none for this task."""

    @property
    def warmup_text(self) -> str:
        """Return the text of the tiny request."""
        return "ready"

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """The longest sequence that the model can take."""

    @property
    @abstractmethod
    def description(self) -> Mapping[str, Any]:
        """Facts about the loaded model for its metadata: dtype, device, labels."""

    @property
    def batch_overhead_tokens(self) -> int:
        """What a batch costs besides its tokens, in tokens: above all, all weights are read once.

        About right for encoders on processors, measured with those of 22 and 66 million parameters.
        """
        return 32

    @property
    def batches_at_once(self) -> int:
        """How many batches may run at the same time."""
        return 1

    def prepare_thread(self, exclusive: bool) -> None:  # noqa: B027 - most models need nothing
        """Prepare a thread that will call `forward`, for batches that run alone or beside others."""

    @property
    def pads(self) -> bool:
        """Whether the sequences of a batch are filled up to the longest, which costs as much as tokens do."""
        return True

    def encodes_inline(self, texts: Sequence[str]) -> bool:
        """Return whether `encode` and `decode` of `texts` take no longer than to hand them to a thread.

        Both may then be called in any thread, at the same time as in others.
        """
        return False

    @abstractmethod
    def encode(self, text: str, parameters: Any, limit: InputLimit) -> Sequence[EncodedSequence]:
        """Return the sequences that answer `text`; raise a ServingError if it cannot be answered."""

    @abstractmethod
    def forward(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return one raw output for each sequence of `batch`, all of one group."""

    @abstractmethod
    def decode(
        self, text: str, encoded: Sequence[EncodedSequence], outputs: Sequence[Any], parameters: Any
    ) -> Prediction:
        """Return the prediction for `text` from the raw outputs of its sequences."""


class Engine(Protocol):
    """What answers for one model, as the protocols see it."""

    args: ModelArgs
    model: TaskModel
    # Seconds by phase of this replica's start, once it is over.
    cold_start: Mapping[str, float]

    @property
    def input_limit(self) -> InputLimit:
        """The endpoint's limit, or the model's own if that is lower."""
        ...

    async def predict(
        self, texts: Sequence[str], overrides: Mapping[str, Any] | None = None
    ) -> list[Prediction]:
        """Return one prediction for each text.

        Raises a ServingError: invalid input 422, time limit 408, too many requests 429.
        """
        ...
