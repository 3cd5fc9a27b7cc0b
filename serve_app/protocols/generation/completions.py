"""OpenAI's `POST /v1/completions` (API reference, "Create completion"): prompts without a template."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from serve_app.contract import Task
from serve_app.engine.base import Engine
from serve_app.engine.generation import GeneratedToken, Part, Quantity
from serve_app.http.errors import InvalidInputError, Reply
from serve_app.http.streaming import StreamedReply
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.generation.continuations import begin, text_of
from serve_app.protocols.generation.openai_answers import REASONS, Frame
from serve_app.protocols.generation.openai_members import OpenAIRequest, Unsupported
from serve_app.protocols.inputs import require_model, require_task
from serve_app.text import quoted

COMPLETIONS: Final = "v1/completions"

# Continuations of one request; each has a place of its own in the replica.
MAX_CONTINUATIONS: Final = 64


def _prompts(value: Any) -> Any:
    """Return a list of prompts, each a text or a list of token ids."""
    one = isinstance(value, str) or (isinstance(value, list) and value and all(map(_is_id, value)))
    prompts = [value] if one else value
    if not isinstance(prompts, list) or not prompts:
        raise ValueError(f"got {quoted(value)}; must be a text, a list of token ids, or a list of these")
    for number, prompt in enumerate(prompts):
        ids = isinstance(prompt, list) and prompt and all(map(_is_id, prompt))
        if not ids and not isinstance(prompt, str):
            raise ValueError(
                f"got {quoted(prompt)} as prompt {number}; must be a text or a list of token ids"
            )
    return prompts


def _is_id(value: Any) -> bool:
    return type(value) is int and value >= 0


class CompletionRequest(OpenAIRequest):
    """One request."""

    prompt: Annotated[
        list[str | list[int]],
        BeforeValidator(_prompts, json_schema_input_type=str | list[int] | list[str] | list[list[int]]),
    ]
    logprobs: int | None = Field(default=None, ge=0, le=5)
    echo: bool | None = None
    # Of several continuations, the best `n`.
    best_of: int | None = None

    suffix: Unsupported = None
    response_format: Unsupported = None

    def require_answerable(self) -> None:
        """Raise InvalidInputError for what spans members."""
        if self.best_of not in (None, self.choices):
            raise InvalidInputError(
                f"best_of: got {self.best_of}; all choices are returned, so it must be n, or absent",
                member="best_of",
            )
        number = len(self.prompt) * self.choices
        if number > MAX_CONTINUATIONS:
            raise InvalidInputError(
                f"prompt: {len(self.prompt)} prompts with {self.choices} choices each; one request takes "
                f"{MAX_CONTINUATIONS} of both together",
                member="prompt",
                limit=MAX_CONTINUATIONS,
            )
        if self.echo and self.logprobs is not None:
            raise InvalidInputError("echo: a prompt has no logprobs here; leave one out", member="echo")
        if self.echo and not all(isinstance(prompt, str) for prompt in self.prompt):
            raise InvalidInputError("echo: is for prompts that are texts", member="echo")

    def members(self) -> dict[Quantity, str]:
        """Return what the client calls what may be too much."""
        continuations = "n" if self.choices > 1 else "prompt"
        return {
            Quantity.CONTINUATIONS: continuations,
            Quantity.NEW_TOKENS: "max_tokens",
            Quantity.SCORES: "logprobs",
        }

    def echoed(self, number: int) -> str:
        """Return what the text of a choice begins with."""
        prompt = self.prompt[number // self.choices]
        return prompt if self.echo and isinstance(prompt, str) else ""


async def completions(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply | StreamedReply:
    """Answer with `n` texts for each prompt, as a whole or in chunks."""
    require_task(engine, Task.TEXT_GENERATION, "completions")
    request = parse_body(CompletionRequest, body)
    require_model(engine, request.model)
    request.require_answerable()
    asked = [each for prompt in request.prompt for each in request.requests(prompt, request.logprobs)]
    continuations = await begin(engine, asked, request.members())
    frame = Frame("cmpl", "text_completion", engine.args.name, request.choices)
    choices = _Choices(request)
    if request.stream:
        events = frame.events(continuations, choices.chunks, with_usage=request.wants_usage)
        return continuations.streamed(COMPLETIONS, events)
    parts = await continuations.collected()
    return frame.whole(continuations, [choices.whole(number, each) for number, each in enumerate(parts)])


class _Choices:
    """Makes choices of parts. It knows how long the text of each is so far, for the offsets of tokens."""

    def __init__(self, request: CompletionRequest) -> None:
        self._request = request
        self._lengths: defaultdict[int, int] = defaultdict(int)
        self._begun: set[int] = set()

    def whole(self, number: int, parts: Sequence[Part]) -> dict[str, Any]:
        tokens = [token for part in parts for token in part.tokens]
        text = self._request.echoed(number) + text_of(parts)
        return self._choice(number, text, tokens, REASONS[parts[-1].finish_reason])

    def chunks(self, number: int, part: Part) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a part; the last one of a choice says why it ended."""
        text = part.text
        if number not in self._begun:
            self._begun.add(number)
            text = self._request.echoed(number) + text
        if text or (part.tokens and self._request.logprobs is not None):
            yield self._choice(number, text, part.tokens, None)
        if part.finish_reason is not None:
            yield self._choice(number, "", (), REASONS[part.finish_reason])

    def _choice(
        self, number: int, text: str, tokens: Sequence[GeneratedToken], reason: str | None
    ) -> dict[str, Any]:
        logprobs = self._logprobs(number, tokens) if tokens else None
        return {"text": text, "index": number, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, number: int, tokens: Sequence[GeneratedToken]) -> dict[str, Any] | None:
        """Return lists with an element for each token. The chosen one is among the best, or beside them."""
        if self._request.logprobs is None:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self._lengths[number])
            self._lengths[number] += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [_best(token) for token in tokens],
            "text_offset": offsets,
        }


def _best(token: GeneratedToken) -> dict[str, float]:
    """Return logprobs by text, as OpenAI has them: of tokens with the same text, that of the likeliest."""
    best: dict[str, float] = {}
    for each in sorted((*token.top, token), key=lambda score: -score.logprob):
        best.setdefault(each.text, each.logprob)
    return best
