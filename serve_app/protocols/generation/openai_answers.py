"""What OpenAI's two answers of text have in common: their frame, and the count of tokens."""

import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from serve_app.engine.generation import FinishReason, Part
from serve_app.http.errors import Reply
from serve_app.http.streaming import data_event, event
from serve_app.protocols.generation.continuations import Continuations

DONE: Final = data_event(b"[DONE]")

# From the number of a choice and what it has grown by to the choices of the chunks that say so.
Chunks = Callable[[int, Part], Iterator[dict[str, Any]]]

# OpenAI has one word for whatever ends a text before it is as long as it may be.
REASONS: Final[Mapping[FinishReason | None, str | None]] = {
    None: None,
    FinishReason.END_TOKEN: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
}


@dataclass(frozen=True)
class Frame:
    """What all chunks of an answer have in common. `name` is the kind of object, as chat.completion."""

    prefix: str
    name: str
    model: str
    # How many choices each prompt has.
    per_prompt: int
    created: int = field(default_factory=lambda: int(time.time()))
    number: str = field(default_factory=lambda: uuid.uuid4().hex)

    def document(self, choices: Sequence[dict[str, Any]], **members: Any) -> dict[str, Any]:
        return {
            "id": f"{self.prefix}-{self.number}",
            "object": self.name,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **members,
            "system_fingerprint": None,
        }

    def usage(self, continuations: Continuations) -> dict[str, Any]:
        """Return the count of tokens so far. A prompt counts once, whatever the number of its choices."""
        read, written = continuations.prompt_tokens(self.per_prompt), continuations.generated_tokens
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": continuations.cached_tokens(self.per_prompt)},
        }

    def whole(self, continuations: Continuations, choices: Sequence[dict[str, Any]]) -> Reply:
        return Reply.of_json(self.document(choices, usage=self.usage(continuations)))

    async def events(
        self, continuations: Continuations, chunks: Chunks, *, with_usage: bool
    ) -> AsyncGenerator[bytes, None]:
        """Yield the events of a streamed answer; `with_usage`, each has `usage`, and the last one counts."""
        members: dict[str, Any] = {"usage": None} if with_usage else {}
        async for number, part in continuations:
            for choice in chunks(number, part):
                yield event(self.document([choice], **members))
        if with_usage:
            yield event(self.document([], usage=self.usage(continuations)))
        yield DONE
