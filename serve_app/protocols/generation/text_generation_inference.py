"""`generate` and `generate_stream` of Hugging Face's text-generation-inference (its OpenAPI document).

At a model's own path, `stream: true` asks for the same events, as huggingface_hub's text_generation does.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from serve_app.contract import StrictModel, Task
from serve_app.engine.base import Engine
from serve_app.engine.generation import (
    FinishReason,
    GeneratedToken,
    GenerationRequest,
    Part,
    Quantity,
    TokenScore,
)
from serve_app.http.errors import Reply
from serve_app.http.streaming import StreamedReply, event
from serve_app.parameters import MAX_NEW_TOKENS, StopText
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.generation.continuations import Continuations, begin, text_of
from serve_app.protocols.generation.openai_members import Unsupported
from serve_app.protocols.inputs import require_task

GENERATE: Final = "generate"
GENERATE_STREAM: Final = "generate_stream"

REASONS: Final[Mapping[FinishReason | None, str]] = {
    FinishReason.END_TOKEN: "eos_token",
    FinishReason.STOP: "stop_sequence",
    FinishReason.LENGTH: "length",
}

_MEMBERS: Final = {
    Quantity.NEW_TOKENS: "parameters.max_new_tokens",
    Quantity.SCORES: "parameters.top_n_tokens",
}

# By their presence, these say that tokens are drawn.
_OF_SAMPLING: Final = ("temperature", "top_k", "top_p", "min_p")


def _one(value: float | None) -> float | None:
    if value not in (None, 1):
        raise ValueError(f"got {value}; must be 1, or absent")
    return value


One = Annotated[float | None, AfterValidator(_one)]
"""A member of which only the value that changes nothing is supported."""


class GenerateParameters(StrictModel):
    """The parameters of a request. Without `do_sample`, one that says how to sample asks for sampling."""

    max_new_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    do_sample: bool | None = None
    temperature: float | None = Field(default=None, gt=0, le=100)
    top_k: int | None = Field(default=None, ge=0, le=100_000)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=0, le=2**53)
    stop: list[StopText] | None = Field(default=None, max_length=16)
    ignore_eos: bool | None = None
    return_full_text: bool | None = None
    details: bool | None = None
    top_n_tokens: int | None = Field(default=None, ge=0, le=5)
    # Whether a prompt that is too long is cut or refused.
    truncate: bool | None = None
    best_of: One = None
    typical_p: One = None

    decoder_input_details: Unsupported = None
    watermark: Unsupported = None
    grammar: Unsupported = None
    adapter_id: Unsupported = None


class GenerateRequest(StrictModel):
    """One request; `stream` counts at a model's own path and at `generate`."""

    inputs: str
    parameters: GenerateParameters | None = None
    stream: bool | None = None
    options: dict[str, Any] | None = None


def sampled(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are not null, with `do_sample` if they say how to sample."""
    parameters = {name: value for name, value in stated.items() if value is not None}
    if any(name in parameters for name in _OF_SAMPLING):
        parameters.setdefault("do_sample", True)
    return parameters


async def generate(engine: Engine, body: bytes, *, stream: bool, path: str) -> Reply | StreamedReply:
    """Answer with the whole text, or with an event for each token if `stream` or the request says so.

    At the model's own path, which is "", the whole text is the only element of a list.
    """
    require_task(engine, Task.TEXT_GENERATION, path or "stream")
    request = parse_body(GenerateRequest, body)
    parameters = request.parameters or GenerateParameters()
    stream = stream or bool(request.stream)
    answer = _Answer(request.inputs, parameters)
    asked = answer.request(with_scores=stream or bool(parameters.details))
    continuations = await begin(engine, [asked], _MEMBERS)
    if stream:
        return continuations.streamed(path, answer.events(continuations))
    [parts] = await continuations.collected()
    document = answer.whole(parts)
    return Reply.of_json([document] if path == "" else document)


class _Answer:
    """Makes the answer to one request."""

    def __init__(self, prompt: str, parameters: GenerateParameters) -> None:
        self._prompt = prompt
        self._parameters = parameters

    def request(self, *, with_scores: bool) -> GenerationRequest:
        stated = self._parameters.model_dump(exclude=_OF_THE_ANSWER)
        return GenerationRequest(
            self._prompt,
            {**sampled(stated), "return_full_text": False},
            top_logprobs=(self._parameters.top_n_tokens or 0) if with_scores else None,
            truncate=self._parameters.truncate,
        )

    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        document: dict[str, Any] = {"generated_text": self._text(parts)}
        if self._parameters.details:
            tokens = [(part, token) for part in parts for token in part.tokens]
            document["details"] = self._ending(parts) | {
                "prefill": [],
                "tokens": [_token(token, token.text, special=_ends(part, token)) for part, token in tokens],
                "best_of_sequences": None,
            }
            if self._parameters.top_n_tokens:
                document["details"]["top_tokens"] = [_best(token) for _, token in tokens]
        return document

    async def events(self, continuations: Continuations) -> AsyncGenerator[bytes, None]:
        """Yield an event for each token; their texts make the whole text, which the last event has too."""
        parts: list[Part] = []
        index = 0
        async for _, part in continuations:
            parts.append(part)
            last = part.finish_reason is not None
            tokens = _tokens(part)
            for number, (text, token) in enumerate(tokens, start=1):
                index += 1
                document = {"index": index, "token": _token(token, text, special=_ends(part, token))}
                if self._parameters.top_n_tokens:
                    document["top_tokens"] = _best(token)
                document |= {"generated_text": None, "details": None}
                if last and number == len(tokens):
                    document["generated_text"] = self._text(parts)
                    document["details"] = self._ending(parts) | {
                        "input_length": continuations.prompt_tokens()
                    }
                yield event(document)

    def _text(self, parts: Sequence[Part]) -> str:
        return (self._prompt if self._parameters.return_full_text else "") + text_of(parts)

    def _ending(self, parts: Sequence[Part]) -> dict[str, Any]:
        return {
            "finish_reason": REASONS.get(parts[-1].finish_reason),
            "generated_tokens": sum(len(part.tokens) for part in parts),
            "seed": self._parameters.seed,
        }


# Members that the engine does not get as parameters.
_OF_THE_ANSWER: Final = {
    "details",
    "top_n_tokens",
    "truncate",
    "best_of",
    "typical_p",
    "decoder_input_details",
    "watermark",
    "grammar",
    "adapter_id",
    "return_full_text",
}


def _tokens(part: Part) -> list[tuple[str, GeneratedToken]]:
    """Return the tokens of a part, each with the text that it adds: all of it comes with the last token.

    Text that was held back may come without a token, and then has one without a number.
    """
    if not part.tokens:
        return [(part.text, GeneratedToken(0, part.text, 0.0))]
    *others, last = part.tokens
    return [*(("", token) for token in others), (part.text, last)]


def _token(token: TokenScore, text: str, *, special: bool) -> dict[str, Any]:
    """Return a token as clients read it, some of which leave out the text of special ones."""
    return {"id": token.id, "text": text, "logprob": token.logprob, "special": special}


def _ends(part: Part, token: GeneratedToken) -> bool:
    """Return whether the token ends the text without being a part of it."""
    ended = part.finish_reason in (FinishReason.END_TOKEN, FinishReason.STOP)
    return ended and not part.text and part.tokens[-1:] == (token,)


def _best(token: GeneratedToken) -> list[dict[str, Any]]:
    return [_token(each, each.text, special=False) for each in token.top]
