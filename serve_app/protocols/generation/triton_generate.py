"""Triton's and KServe's generate extension: `{"text_input", "parameters"}` in, `text_output` out.

Sources: Triton, docs/protocol/extension_generate.md; Open Inference Protocol, specification/protocol/
generate_rest.yaml. Parameters of the model are those of the task, and what its backend for vLLM calls them.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import from_json

from serve_app.contract import StrictModel, Task
from serve_app.engine.base import Engine
from serve_app.engine.generation import GenerationRequest, Part
from serve_app.http.errors import Reply
from serve_app.http.streaming import StreamedReply, event
from serve_app.parameters import MAX_NEW_TOKENS, StopText
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.generation import text_generation_inference
from serve_app.protocols.generation.continuations import Continuations, begin, text_of
from serve_app.protocols.generation.text_generation_inference import (
    GENERATE,
    GENERATE_STREAM,
    REASONS,
    sampled,
)
from serve_app.protocols.inputs import require_task
from serve_app.protocols.open_inference_tensors import VERSION


def _no_words(words: list[str] | None) -> list[str] | None:
    if any(words or ()):
        raise ValueError("is not supported here, and would change the answer; leave it out")
    return words


class TritonParameters(StrictModel):
    """The parameters of a request. At temperature 0 no token is drawn; another one asks for sampling."""

    max_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    max_new_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    do_sample: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_k: int | None = Field(default=None, ge=-1, le=100_000)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=0, le=2**53)
    stop: list[StopText] | None = Field(default=None, max_length=16)
    # TensorRT-LLM's names; clients send [""] for none.
    stop_words: list[Annotated[str, Field(max_length=200)]] | None = Field(default=None, max_length=16)
    bad_words: Annotated[list[str] | None, AfterValidator(_no_words)] = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    details: bool | None = None

    def stated(self) -> dict[str, Any]:
        """Return the task's parameters."""
        stated = self.model_dump(exclude={"max_tokens", "stop_words", "bad_words", "stream", "details"})
        stated["max_new_tokens"] = self.max_tokens or self.max_new_tokens
        stated["stop"] = self.stop or [word for word in self.stop_words or () if word] or None
        if self.top_k is not None:
            stated["top_k"] = max(self.top_k, 0)
        if self.temperature == 0:
            stated |= {"temperature": None, "do_sample": False}
        return {**sampled(stated), "return_full_text": False}


class TritonRequest(StrictModel):
    """One request; `stream` says what the path says too."""

    id: str | None = None
    text_input: str
    parameters: TritonParameters | None = None
    stream: bool | None = None


async def generate(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply | StreamedReply:
    """Answer `generate` in the protocol that the body is of."""
    return await _generate(engine, body, GENERATE)


async def generate_stream(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply | StreamedReply:
    """Answer `generate_stream` likewise."""
    return await _generate(engine, body, GENERATE_STREAM)


async def _generate(engine: Engine, body: bytes, path: str) -> Reply | StreamedReply:
    stream = path == GENERATE_STREAM
    if not _is_triton(body):
        return await text_generation_inference.generate(engine, body, stream=stream, path=path)
    require_task(engine, Task.TEXT_GENERATION, path)
    request = parse_body(TritonRequest, body)
    parameters = request.parameters or TritonParameters()
    scores = 0 if parameters.details else None
    asked = GenerationRequest(request.text_input, parameters.stated(), top_logprobs=scores)
    continuations = await begin(engine, [asked], {})
    frame: dict[str, Any] = {"model_name": engine.args.name, "model_version": VERSION}
    if request.id is not None:
        frame["id"] = request.id
    if stream:
        return continuations.streamed(path, _events(frame, continuations, with_details=scores is not None))
    [parts] = await continuations.collected()
    return Reply.of_json(_grown(frame, parts, with_details=scores is not None))


def _is_triton(body: bytes) -> bool:
    if b'"text_input"' not in body:
        return False
    try:
        document = from_json(body)
    except ValueError:
        return False
    return isinstance(document, dict) and "text_input" in document


async def _events(
    frame: Mapping[str, Any], continuations: Continuations, *, with_details: bool
) -> AsyncGenerator[bytes, None]:
    async for _, part in continuations:
        if part.text or with_details:
            yield event(_grown(frame, [part], with_details=with_details))


def _grown(frame: Mapping[str, Any], parts: Sequence[Part], *, with_details: bool) -> dict[str, Any]:
    """Return the whole text, or what it has grown by."""
    document = {**frame, "text_output": text_of(parts)}
    if with_details:
        tokens = [token for part in parts for token in part.tokens]
        document["details"] = {
            "finish_reason": REASONS.get(parts[-1].finish_reason),
            "logprobs": [
                {"id": token.id, "text": token.text, "logprob": token.logprob, "special": False}
                for token in tokens
            ],
        }
    return document
