"""What an engine asks of a model (TaskModel), and what it offers to the protocols (Engine).

This module imports neither torch nor transformers, so an engine and its tests need neither.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from serve_app.contract import Dtype, ModelArgs, ParameterValue
from serve_app.engine.continuous.choice import Steps
from serve_app.engine.continuous.figures import Figures
from serve_app.engine.generation import Generation, GenerationRequest
from serve_app.http.errors import InputTooLongError, InvalidInputError

# The answer for one text, ready for JSON; its keys are the names in the task's `outputs`.
Prediction = dict[str, Any]


@dataclass(frozen=True)
class TextPair:
    """Two texts that the model reads together, such as a question and where its answer may be."""

    first: str
    second: str


Input = str | TextPair


def texts_of(text: Input) -> tuple[str, ...]:
    """Return the texts of one input."""
    return (text.first, text.second) if isinstance(text, TextPair) else (text,)


def characters_of(text: Input) -> int:
    return sum(map(len, texts_of(text)))


class ModelLoadError(Exception):
    """The folder holds no model for the task."""


class NotFiniteError(ArithmeticError):
    """The model has computed something that is no number."""

    def __init__(self) -> None:
        super().__init__("the model's output has NaN or infinity; try float32, or another model")


@dataclass(frozen=True)
class Output:
    """One member of a prediction, as the Open Inference Protocol declares it.

    BYTES members that are not text are sent as JSON. The first dimension is the batch; -1 means any size.
    A member with a `parameter` is there only if that is given.
    """

    name: str
    datatype: Literal["BYTES", "FP32", "INT64"]
    shape: tuple[int, ...]
    parameter: str = ""


@dataclass(frozen=True)
class InputLimit:
    """The most tokens that a sequence may have, and whether a longer one is truncated or refused."""

    max_tokens: int
    truncate: bool

    def check(self, length: int, *, at_least: bool = False) -> None:
        """Raise InputTooLongError if a sequence of `length` tokens, or more with `at_least`, is refused."""
        if length > self.max_tokens and not self.truncate:
            stated = f"at least {length}" if at_least else length
            raise InputTooLongError(
                f"the text has {stated} tokens and this endpoint takes {self.max_tokens}; "
                "shorten it, or set limits.truncateInput on the endpoint",
                length=length,
                limit=self.max_tokens,
            )


@dataclass(frozen=True)
class EncodedSequence:
    """One sequence for the model: the tokenizer's lists by name, with one number for each token.

    Only sequences of the same `group` may share a batch. `new_tokens` is how many may be generated.
    """

    features: Mapping[str, list[int]]
    group: Hashable = None
    new_tokens: int = 0

    @property
    def length(self) -> int:
        return len(self.features["input_ids"])

    @property
    def tokens(self) -> int:
        """How much work it is: tokens that are read and tokens that are generated."""
        return self.length + self.new_tokens


class Progress:
    """Lets a long forward pass report that it is alive, and learn that no client waits for it any more.

    `answers` are those of the requests in the batch, and `size` is its number of sequences.
    """

    def __init__(self, answers: Collection[asyncio.Future[Any]], size: int) -> None:
        self._answers = answers
        self.size = size
        self.last = time.monotonic()

    def tick(self) -> bool:
        """Report one step; return whether a client still waits for the result."""
        self.last = time.monotonic()
        return not all(answer.done() for answer in self._answers)


class TaskModel(ABC):
    """A loaded model with the code of its task.

    `encode`, `decode` and `continuation` are called in one thread, or the former two on the event loop if
    `encodes_inline` says so; `token_text` is called on the event loop.
    `forward` is called in other threads, in up to `batches_at_once` of them at the same time, and in one more
    with `has_side_stream`.
    """

    outputs: ClassVar[tuple[Output, ...]]
    # What clients call the texts of one input, and how many it must have; two of them are a TextPair.
    input_names: ClassVar[tuple[str, ...]] = ("text",)
    inputs_required: ClassVar[int] = 1
    # How long the constructor has compared the model's answers with the right ones.
    proof_seconds: float = 0.0

    @abstractmethod
    def __init__(self, folder: Path, dtype: Dtype) -> None:
        """Load the model in `folder`; raise ModelLoadError if it is none for this task."""

    # What computes the model in steps, if it can be generated with one token after the other.
    steps: Steps | None = None

    @property
    def warmup_parameters(self) -> Mapping[str, ParameterValue]:
        """The parameters of the tiny request that warms the model up and shows that it works."""
        return {}

    @property
    def warmup_text(self) -> Input:
        """The text of that request."""
        return "ready"

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """The length of the longest sequence that the model can take."""

    @property
    @abstractmethod
    def description(self) -> Mapping[str, Any]:
        """Facts about the loaded model for its metadata: dtype, device, labels."""

    @property
    def batch_overhead_tokens(self) -> int:
        """The fixed cost of a batch, mostly one read of all weights, as a number of tokens that cost as much.

        The default suits encoders on CPUs; it was measured with models of 22 and 66 million parameters.
        """
        return 32

    @property
    def batches_at_once(self) -> int:
        """How many batches may run at the same time, each in a stream of its own."""
        return 1

    @property
    def has_side_stream(self) -> bool:
        """Whether a small batch may run beside large ones that have all streams, in one more thread."""
        return False

    def prepare_thread(self, exclusive: bool) -> None:  # noqa: B027 - most models need nothing
        """Prepare a thread that will call `forward`; if `exclusive`, for batches that run alone."""

    @property
    def pads(self) -> bool:
        """Whether the sequences of a batch are padded to the longest one. Padding costs as much as tokens."""
        return True

    def encodes_inline(self, texts: Sequence[Input]) -> bool:
        """Return whether `encode` and `decode` of `texts` are quicker than handing them to a thread.

        Both must then be safe to call in several threads at once.
        """
        return False

    @abstractmethod
    def encode(self, text: Any, parameters: Any, limit: InputLimit) -> Sequence[EncodedSequence]:
        """Return the sequences that answer `text`; raise a ServingError if it cannot be answered.

        `text` is an Input of the kind that `input_names` says.
        """

    def answer_characters(self, text: Any, encoded: Sequence[EncodedSequence], parameters: Any) -> int:
        """Return about how long the answer is, if it may be many times as long as the text; else 0."""
        return 0

    @abstractmethod
    def forward(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return one raw output for each sequence of `batch`, all of one group."""

    def output_tokens(self, outputs: Sequence[Any]) -> int:
        """Return how many tokens were generated for these raw outputs; other models generate none."""
        return 0

    def continuation(self, request: GenerationRequest, parameters: Any, limit: InputLimit) -> EncodedSequence:
        """Return what is generated in steps for a request; raise a ServingError if it cannot be answered."""
        raise InvalidInputError("this model does not generate text; send the request to a chat model")

    def token_text(self, token: int) -> str:
        """Return the text of one token that was generated."""
        raise NotImplementedError

    @abstractmethod
    def decode(
        self, text: Any, encoded: Sequence[EncodedSequence], outputs: Sequence[Any], parameters: Any
    ) -> Prediction:
        """Return the prediction for `text` from the raw outputs of its sequences."""


@dataclass(frozen=True)
class Answer:
    """One prediction for each text of a request, and how many tokens of them the model has read."""

    predictions: list[Prediction]
    tokens: int


class Engine(Protocol):
    """What answers for one model, as the protocols see it."""

    args: ModelArgs
    model: TaskModel
    # Seconds by phase of this replica's start, once it is over.
    cold_start: Mapping[str, float]
    # The commit of the hub that is served; empty for other sources.
    commit: str

    @property
    def figures(self) -> Figures | None:
        """What is counted of a model that is computed in steps."""
        ...

    @property
    def input_limit(self) -> InputLimit:
        """The endpoint's limit, or the model's own if that is lower."""
        ...

    @property
    def request_timeout_seconds(self) -> float:
        """How long a whole answer may take, and the first part of one that is generated."""
        ...

    async def answer(
        self,
        texts: Sequence[Input],
        overrides: Mapping[str, Any] | None = None,
        truncate: bool | None = None,
    ) -> Answer:
        """Return one prediction for each text; `overrides` and `truncate` go before the endpoint's settings.

        Raises a ServingError: invalid input 422, time limit 408, too many requests 429.
        """
        ...

    async def predict(
        self, texts: Sequence[Input], overrides: Mapping[str, Any] | None = None
    ) -> list[Prediction]:
        """Return the predictions of `answer`."""
        return (await self.answer(texts, overrides)).predictions

    async def generate(self, request: GenerationRequest) -> Generation:
        """Return a continuation that has been accepted and is generated while it is iterated.

        Raises a ServingError as `answer` does, and invalid input 422 for a model that is not generated with
        step by step, a chat without a template, or one that the template refuses.
        """
        ...
