"""What a client asks of a model that generates token by token, and what it gets while that goes on.

The engine is engine/batch_engine.py, which streams by engine/streamed.py. This module imports neither torch
nor transformers.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from serve_app.http.errors import InvalidInputError

# Log-probabilities in one answer, those of the most likely tokens included; each becomes some 80 bytes.
MAX_SCORES: Final = 100_000


class FinishReason(StrEnum):
    """Why a continuation is complete."""

    # A token has ended the text: one of the model's own, or one that the request names.
    END_TOKEN = "end_token"
    # The text has come to a stop text, of the request, the endpoint or the model's folder.
    STOP = "stop"
    # There are as many new tokens as were allowed, or the model takes no more.
    LENGTH = "length"


@dataclass(frozen=True)
class Chat:
    """A conversation, which the chat template of the model's folder turns into a prompt.

    `messages` are as OpenAI's API has them: `role`, `content` and what the template reads besides. The answer
    continues the last one with `continues`, and is a new one otherwise.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    continues: bool = False


Prompt = str | Sequence[int] | Chat


class Quantity(StrEnum):
    """What makes a client's request large. The values are names for it where a protocol has no other."""

    CONTINUATIONS = "n"
    NEW_TOKENS = "max_new_tokens"
    SCORES = "top_logprobs"


class TooMuchError(InvalidInputError):
    """All continuations of a client's request together are more than `limit`, by these quantities."""

    def __init__(self, message: str, *quantities: Quantity, limit: int) -> None:
        super().__init__(message, limit=limit)
        self.quantities = quantities


@dataclass(frozen=True)
class GenerationRequest:
    """One continuation. `parameters` and `truncate` go before the endpoint's settings.

    With `top_logprobs`, each token comes with its log-probability and those of so many of the likeliest.
    """

    prompt: Prompt
    parameters: Mapping[str, Any] = field(default_factory=dict)
    # Tokens that end the continuation, besides those of the model.
    stop_token_ids: Sequence[int] = ()
    top_logprobs: int | None = None
    truncate: bool | None = None
    # How many continuations the client has asked for with this one, itself included.
    together: int = 1
    # Whether it is the first of those that continue the same prompt, which counts once.
    counts_prompt: bool = True
    # The same object for all of these, which take turns with others as one request.
    owner: object = None

    def bounded(self, new_tokens: int) -> int:
        """Return how many tokens it may have instead of `new_tokens`, for the sake of its log-probabilities.

        Where the client says how many it wants, TooMuchError is raised instead.
        """
        if self.top_logprobs is None:
            return new_tokens
        each = 1 + self.top_logprobs
        most = MAX_SCORES // (self.together * each)
        if new_tokens > most and self.parameters.get("max_new_tokens") is not None:
            raise TooMuchError(
                f"{self.together} continuation(s) of up to {new_tokens} tokens with {each} log-probabilities "
                f"each make {self.together * new_tokens * each}, and one request takes {MAX_SCORES} of them",
                Quantity.SCORES,
                *([Quantity.CONTINUATIONS] if self.together > 1 else []),
                Quantity.NEW_TOKENS,
                limit=MAX_SCORES,
            )
        return min(new_tokens, most)


@dataclass(frozen=True)
class TokenScore:
    """A token of the vocabulary, what it is as text, and the natural logarithm of its probability."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class GeneratedToken(TokenScore):
    """A chosen token beside the most likely ones, best first. Without `top_logprobs`, its logprob is 0."""

    top: tuple[TokenScore, ...] = ()


@dataclass(frozen=True)
class Part:
    """What a continuation has grown by: text, which may be empty, and the tokens behind it.

    Text that may turn out to be the beginning of a stop text, or half a character, comes with a later part.
    """

    text: str
    tokens: tuple[GeneratedToken, ...] = ()
    finish_reason: FinishReason | None = None


class Generation(Protocol):
    """One continuation that is being generated. The last part, and only that, has a finish reason.

    Iterating raises a ServingError if the model fails, the time is over, or the replica stops.
    """

    # Of the prompt: all tokens, and those of them that another request's prompt had computed already.
    prompt_tokens: int
    cached_tokens: int
    # So far.
    generated_tokens: int

    def __aiter__(self) -> AsyncIterator[Part]: ...

    async def aclose(self) -> None:
        """Give up what is not generated yet, and free its place; harmless after the end."""
        ...
