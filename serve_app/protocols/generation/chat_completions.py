"""OpenAI's `POST /v1/chat/completions` (API reference, "Create chat completion", "Chat completion chunk").

The chat template of the model's folder makes a prompt of the messages.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import from_json

from serve_app.contract import StrictModel, Task
from serve_app.engine.base import Engine
from serve_app.engine.generation import Chat, GeneratedToken, Part, Quantity, TokenScore
from serve_app.http.errors import InvalidInputError, Reply
from serve_app.http.streaming import StreamedReply
from serve_app.parameters import MAX_NEW_TOKENS
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.generation.continuations import begin, text_of
from serve_app.protocols.generation.openai_answers import REASONS, Frame
from serve_app.protocols.generation.openai_members import Ignored, OpenAIRequest, Unsupported
from serve_app.protocols.inputs import require_model, require_task
from serve_app.text import quoted

CHAT_COMPLETIONS: Final = "v1/chat/completions"

# What clients of one model's own path have as `model`: huggingface_hub (_providers/hf_inference.py), and
# examples of Text Generation Inference.
_UNNAMED: Final = ("dummy", "tgi")


class TextPart(StrictModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


def _joined(value: Any) -> Any:
    """Return the text of a message that has parts: a line for each, as vLLM joins them."""
    if not isinstance(value, list):
        return value
    texts = []
    for number, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else part
        text = part.get("text") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(text, str):
            raise ValueError(f'got {quoted(kind)} as part {number}; must be {{"type": "text", "text": …}}')
        texts.append(text)
    return "\n".join(texts)


class Message(StrictModel):
    """One message. `tool_calls` and `tool_call_id` are for the template to read."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        str | None, BeforeValidator(_joined, json_schema_input_type=str | list[TextPart] | None)
    ] = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    # Answers of clients have these, and are sent again as messages.
    refusal: str | None = None
    function_call: Unsupported = None
    audio: Unsupported = None
    annotations: Ignored = None
    provider_specific_fields: Ignored = None

    def as_template_reads_it(self) -> dict[str, Any]:
        """Return the message without null; the role developer is system, by which name templates know it."""
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self.content or self.refusal or "",
        }
        for name in ("name", "tool_call_id", "reasoning_content"):
            if (value := getattr(self, name)) is not None:
                message[name] = value
        if self.tool_calls:
            message["tool_calls"] = [_call(call) for call in self.tool_calls]
        return message


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call with its arguments as an object, as templates read them; OpenAI has a text in JSON."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = from_json(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}


class ResponseFormat(StrictModel):
    """The form of the answer. Others than text would constrain what the model may write."""

    type: Literal["text"]


class ChatRequest(OpenAIRequest):
    """One request."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None
    # vLLM's.
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    functions: Unsupported = None
    function_call: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    chat_template: Unsupported = None
    chat_template_kwargs: Unsupported = None
    documents: Unsupported = None

    # Only of calls of tools, which there are none of.
    parallel_tool_calls: Ignored = None
    # What the answer is expected to be, which makes it faster elsewhere.
    prediction: Ignored = None

    @property
    def new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def members(self) -> dict[Quantity, str]:
        """Return what the client calls what may be too much."""
        tokens = "max_completion_tokens" if self.max_completion_tokens else "max_tokens"
        return {Quantity.NEW_TOKENS: tokens}

    def chat(self) -> Chat:
        """Return the conversation; raise InvalidInputError for what the answer could not be true to."""
        if self.tools and self.tool_choice != "none":
            raise InvalidInputError(
                "tools: calls are not read out of what the model writes; with tool_choice none the template "
                "gets the tools, and all that the model writes is the content",
                member="tools",
            )
        for number, message in enumerate(self.messages):
            if message.content is None and message.role != "assistant":
                where = f"messages.{number}.content"
                raise InvalidInputError(f"{where}: a message of {message.role} has a content", member=where)
        continues = bool(self.continue_final_message)
        if continues == (not continues if self.add_generation_prompt is None else self.add_generation_prompt):
            raise InvalidInputError(
                "add_generation_prompt: must be the opposite of continue_final_message",
                member="add_generation_prompt",
            )
        messages = [message.as_template_reads_it() for message in self.messages]
        return Chat(messages, tuple(self.tools or ()), continues)


async def chat_completions(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply | StreamedReply:
    """Answer with `n` messages of the assistant, as a whole or in chunks."""
    require_task(engine, Task.TEXT_GENERATION, "chat/completions")
    request = parse_body(ChatRequest, body)
    if request.model not in _UNNAMED:
        require_model(engine, request.model)
    if request.top_logprobs and not request.logprobs:
        raise InvalidInputError("top_logprobs: set logprobs to true with it", member="top_logprobs")
    top = (request.top_logprobs or 0) if request.logprobs else None
    continuations = await begin(engine, request.requests(request.chat(), top), request.members())
    name = "chat.completion.chunk" if request.stream else "chat.completion"
    frame = Frame("chatcmpl", name, engine.args.name, request.choices)
    if request.stream:
        chunks = _Chunks(with_logprobs=top is not None)
        events = frame.events(continuations, chunks, with_usage=request.wants_usage)
        return continuations.streamed(CHAT_COMPLETIONS, events)
    parts = await continuations.collected()
    choices = [_choice(number, each, with_logprobs=top is not None) for number, each in enumerate(parts)]
    return frame.whole(continuations, choices)


def _choice(number: int, parts: Sequence[Part], *, with_logprobs: bool) -> dict[str, Any]:
    tokens = [token for part in parts for token in part.tokens]
    return {
        "index": number,
        "message": {"role": "assistant", "content": text_of(parts), "refusal": None},
        "logprobs": _logprobs(tokens) if with_logprobs else None,
        "finish_reason": REASONS[parts[-1].finish_reason],
    }


class _Chunks:
    """Makes chunks of parts. The first one of a choice has the role, and the last one why it ended."""

    def __init__(self, *, with_logprobs: bool) -> None:
        self._with_logprobs = with_logprobs
        self._begun: set[int] = set()

    def __call__(self, number: int, part: Part) -> Iterator[dict[str, Any]]:
        if number not in self._begun:
            self._begun.add(number)
            yield _delta(number, {"role": "assistant", "content": ""})
        logprobs = _logprobs(part.tokens) if self._with_logprobs and part.tokens else None
        if part.text or logprobs:
            yield _delta(number, {"content": part.text}, logprobs)
        if part.finish_reason is not None:
            yield _delta(number, {}, reason=REASONS[part.finish_reason])


def _delta(
    number: int, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None
) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(tokens: Sequence[GeneratedToken]) -> dict[str, Any]:
    content = [{**_score(token), "top_logprobs": [_score(each) for each in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def _score(token: TokenScore) -> dict[str, Any]:
    # Half a character has no UTF-8 of its own, and its text is then a sign that stands for it.
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.text.encode())}
