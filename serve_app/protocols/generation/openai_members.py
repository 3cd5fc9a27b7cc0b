"""What OpenAI's two requests for text have in common: members, and the parameters of generation they mean.

Sources: API reference, "Create chat completion" and "Create completion"; for what vLLM adds, its "Extra
Parameters". Current clients send members that are null, so null is as absent.
"""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from serve_app.contract import StrictModel
from serve_app.engine.generation import GenerationRequest, Prompt
from serve_app.parameters import MAX_NEW_TOKENS, StopText
from serve_app.protocols.inputs import as_list

MAX_CHOICES: Final = 16

# By which the request says that it does without the member.
_ABSENT: Final[tuple[Any, ...]] = (None, False, 0, "", "none", [], {})


def _left_out(value: Any) -> Any:
    if value not in _ABSENT:
        raise ValueError("is not supported here, and would change the answer; leave it out")
    return value


Unsupported = Annotated[Any, AfterValidator(_left_out)]
"""A member that would change the answer and is not supported."""

Ignored = Any
"""A member that changes no answer: who asks, how it is billed, stored or cached."""


def _texts(value: Any) -> Any:
    return value if value is None else as_list(value)


class StreamOptions(StrictModel):
    """What a stream has besides the answer. Chunks are never padded, whatever `include_obfuscation` says."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: Unsupported = None


class OpenAIRequest(StrictModel):
    """The members that both requests have."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(2**53) + MAX_CHOICES, le=2**53 - MAX_CHOICES)
    stop: Annotated[
        Annotated[list[StopText], Field(max_length=16)] | None,
        BeforeValidator(_texts, json_schema_input_type=str | list[str] | None),
    ] = None
    # vLLM's.
    top_k: int | None = Field(default=None, ge=-1, le=100_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    stop_token_ids: list[int] | None = Field(default=None, max_length=64)
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None

    logit_bias: Unsupported = None
    min_tokens: Unsupported = None
    use_beam_search: Unsupported = None
    truncate_prompt_tokens: Unsupported = None
    bad_words: Unsupported = None
    guided_json: Unsupported = None
    guided_regex: Unsupported = None
    guided_choice: Unsupported = None
    guided_grammar: Unsupported = None
    structured_outputs: Unsupported = None

    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None

    @property
    def choices(self) -> int:
        """How many continuations each prompt gets."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with a count of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def new_tokens(self) -> int | None:
        """How many tokens the answer may have."""
        return self.max_tokens

    def parameters(self) -> dict[str, Any]:
        """Return the task's parameters that the request states.

        A temperature says whether to sample: not at 0, and otherwise so. The rest is as the endpoint has it.
        """
        stated = {name: getattr(self, name) for name in _SAME_NAME}
        # The prompt is no part of these answers, whatever the endpoint says.
        stated |= {"max_new_tokens": self.new_tokens, "return_full_text": False}
        if self.temperature is not None:
            stated["do_sample"] = self.temperature > 0
            stated["temperature"] = self.temperature or None
        if self.top_k is not None:
            stated["top_k"] = max(self.top_k, 0)
        return {name: value for name, value in stated.items() if value is not None}

    def requests(self, prompt: Prompt, top_logprobs: int | None) -> list[GenerationRequest]:
        """Return what each continuation of `prompt` is asked for; each has a seed of its own."""
        parameters = self.parameters()
        return [
            GenerationRequest(
                prompt,
                parameters if self.seed is None else {**parameters, "seed": self.seed + number},
                tuple(self.stop_token_ids or ()),
                top_logprobs,
            )
            for number in range(self.choices)
        ]


_SAME_NAME: Final = (
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "stop",
    "ignore_eos",
)
