"""What a model that is generated step by step is asked: a prompt in tokens, and how each token is chosen."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from transformers import LogitsProcessorList

from serve_app.engine.base import InputLimit
from serve_app.engine.continuous.choice import Sampling
from serve_app.engine.continuous.continuation import Continuation
from serve_app.engine.continuous.token_text import TokenTexts
from serve_app.engine.generation import Chat
from serve_app.http.errors import InputTooLongError, InvalidInputError
from serve_app.loading.transformers_model import TransformersModel
from serve_app.parameters import TextGenerationParameters
from serve_app.text import words

# Of an answer in a chat, if neither the endpoint nor the request says how many.
CHAT_TOKENS: Final = 1024
# Behind this one, a token has the text that it adds.
_WORD: Final = "a"
# What neither processors nor the cache of transformers can do here.
_OTHER_WAYS: Final = ("penalty_alpha", "guidance_scale")
_STEPS_ONLY: Final = ("presence_penalty", "frequency_penalty", "seed", "stop", "ignore_eos")


def states_other_way(generation_config: Any) -> bool:
    """Return whether a folder asks for a way to generate that is not one token after the other."""
    if (generation_config.num_beams or 1) > 1:
        return True
    return any(getattr(generation_config, name, None) not in (None, 1, 1.0) for name in _OTHER_WAYS)


def refuse_unless_in_steps(parameters: TextGenerationParameters) -> None:
    """Raise InvalidInputError for a parameter that `generate` does not have."""
    given = [name for name in _STEPS_ONLY if name in parameters.model_fields_set]
    if given:
        raise InvalidInputError(
            f"parameters.{given[0]}: this model is generated in whole batches, which do not take it"
        )


def limit_beside(limit: InputLimit, new_tokens: int | None, capacity: int) -> InputLimit:
    """Return the limit for a prompt beside so many new tokens, of which there is at least one.

    Both together may have `capacity` tokens. Raises InputTooLongError if there is no room.
    """
    room = capacity - (new_tokens or 1)
    if room < 1:
        raise InputTooLongError(
            f"parameters.max_new_tokens: got {new_tokens}, and prompt and continuation together may have "
            f"{capacity} tokens",
            limit=capacity,
        )
    return InputLimit(min(limit.max_tokens, room), limit.truncate)


class Continuations:
    """Makes continuations for one model, whose folder also states the texts `stops`."""

    def __init__(self, pretrained: TransformersModel, stops: Sequence[str]) -> None:
        assert pretrained.steps is not None
        self._pretrained = pretrained
        self._stops = tuple(stops)
        self.capacity = min(pretrained.max_tokens, pretrained.steps.capacity)
        tokenizer = pretrained.hf_tokenizer
        # The last token of a word: in front of it, some tokenizers have one for the beginning of a text.
        word = tokenizer(_WORD, add_special_tokens=False)["input_ids"][-1:]
        self._token_texts = TokenTexts(tokenizer.decode, word, tokenizer.all_special_ids)

    def of(
        self,
        prompt: Sequence[int],
        options: Mapping[str, Any],
        parameters: TextGenerationParameters,
        *,
        ends: Sequence[int] = (),
        top_logprobs: int | None = None,
    ) -> Continuation:
        """Return how `prompt` is continued with these options of `generate`."""
        model = self._pretrained.model
        config, _ = model._prepare_generation_config(None, **options)
        model._prepare_special_tokens(config, device=self._pretrained.device)
        stated = config.eos_token_id
        stated_ends = [] if stated is None or parameters.ignore_eos else _as_list(stated)
        return Continuation(
            features={"input_ids": list(prompt)},
            new_tokens=self._new_tokens(config, len(prompt)),
            decode=self.text_of,
            ends=frozenset([*stated_ends, *ends]),
            stops=(*self._stops, *parameters.stop),
            sampling=self._sampling(config, parameters, len(prompt), top_logprobs),
            seed=parameters.seed,
        )

    def _new_tokens(self, config: Any, prompt: int) -> int:
        wanted = config.max_new_tokens or max(1, config.max_length - prompt)
        return max(1, min(int(wanted), self.capacity - prompt))

    def _sampling(
        self, config: Any, parameters: TextGenerationParameters, prompt: int, top_logprobs: int | None
    ) -> Sampling:
        samples = bool(config.do_sample)
        # What only shapes the distribution is done here, for all of them faster; transformers does the rest.
        config.do_sample = False
        processors: LogitsProcessorList = self._pretrained.model._get_logits_processor(
            generation_config=config, input_ids_seq_length=prompt, device=self._pretrained.device
        )
        return Sampling(
            samples,
            temperature=float(config.temperature or 1.0),
            top_k=int(config.top_k or 0),
            top_p=float(config.top_p or 1.0),
            min_p=float(getattr(config, "min_p", None) or 0.0),
            presence_penalty=parameters.presence_penalty,
            frequency_penalty=parameters.frequency_penalty,
            top_logprobs=top_logprobs,
            processors=processors or None,
        )

    def chat_tokens(self, chat: Chat, limit: InputLimit) -> list[int]:
        """Return the prompt that the folder's template makes of a chat, within the limit.

        Raises InvalidInputError if there is no template, or it refuses the chat.
        """
        tokenizer = self._pretrained.tokenizer
        text = tokenizer.within_reach(self._templated(chat), limit)
        # The template has the special tokens.
        ids: list[int] = tokenizer.hf_tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.known_tokens(ids, limit)

    def _templated(self, chat: Chat) -> str:
        tokenizer = self._pretrained.hf_tokenizer
        template = tokenizer.chat_template
        if not template:
            raise InvalidInputError(
                "the model's folder has no chat template; send a prompt to /v1/completions or /predict"
            )
        if chat.tools and "tools" not in str(template):
            raise InvalidInputError("tools: the model's chat template has no place for tools")
        try:
            text: str = tokenizer.apply_chat_template(
                [dict(message) for message in chat.messages],
                tools=[dict(tool) for tool in chat.tools] or None,
                tokenize=False,
                add_generation_prompt=not chat.continues,
                continue_final_message=chat.continues,
            )
        except Exception as error:
            # Whatever exception a template causes, it is about these messages.
            raise InvalidInputError(
                f"messages: the model's chat template refuses them: {words(error)}"
            ) from error
        return text

    def known_tokens(self, prompt: Sequence[int], limit: InputLimit) -> list[int]:
        """Return a prompt of token ids within the limit.

        If the endpoint truncates, the first tokens go, because what a prompt ends with is continued. Raises
        InvalidInputError for ids that the model does not know.
        """
        if not prompt:
            raise InvalidInputError("the prompt has no tokens")
        unknown = next((token for token in prompt if not 0 <= token < self._pretrained.vocabulary), None)
        if unknown is not None:
            raise InvalidInputError(
                f"got the token id {unknown}; the model knows 0 to {self._pretrained.vocabulary - 1}"
            )
        limit.check(len(prompt))
        return list(prompt[-limit.max_tokens :])

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, without special tokens."""
        text: str = self._pretrained.hf_tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    def token_text(self, token: int) -> str:
        """Return the text of one token in the middle of a text, special ones too."""
        return self._token_texts.of(token)


def _as_list(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
