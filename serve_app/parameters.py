"""The parameters that each task accepts, in a manifest and in a request. Imports pydantic only.

Names and meanings are those of the transformers pipelines and of `GenerationConfig`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from serve_app.contract import ParameterValue, StrictModel, Task
from serve_app.text import quoted, shortened

MAX_NEW_TOKENS: Final = 4096
# Pairs of a start and an end are looked at in each window: 4 million of them.
MAX_WINDOW_TOKENS: Final = 2048

StopText = Annotated[str, Field(min_length=1, max_length=200)]
Label = Annotated[str, Field(max_length=200)]
Language = Annotated[str, Field(min_length=1, max_length=40)]

# How messages describe contract.ParameterValue.
PARAMETER_VALUES: Final = "text, a number, true, false or a list of texts"


def is_parameter_value(location: Sequence[int | str]) -> bool:
    """Return whether pydantic's error at `location` is about the value of a parameter.

    Below a parameter's name, pydantic lists the members of the union that it tried. The location of an error
    in the name itself ends with "[key]".
    """
    return "parameters" in location[:-1] and location[-1] != "[key]"


class TextClassificationParameters(StrictModel):
    """`top_k` adds the best k labels; `function_to_apply` defaults to what the model was trained for."""

    top_k: int | None = Field(default=None, ge=1, le=1000)
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class TextRankingParameters(StrictModel):
    """What makes a score of the model's number: by default what its folder says, else sigmoid."""

    function_to_apply: Literal["sigmoid", "none"] | None = None


class TokenClassificationParameters(StrictModel):
    """How word pieces are merged into entities."""

    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "simple"


class ZeroShotParameters(StrictModel):
    """The labels to choose from, and the sentence that puts each of them into words."""

    candidate_labels: list[Label] = Field(default_factory=list, max_length=100)
    hypothesis_template: str = Field(default="This example is {}.", max_length=500, pattern=r"\{\}")
    multi_label: bool = False


class FeatureExtractionParameters(StrictModel):
    """How token vectors become one vector; by default as the model folder's modules.json says."""

    pooling: Literal["mean", "cls", "max"] | None = None
    normalize: bool | None = None


class FillMaskParameters(StrictModel):
    """How many tokens are returned for each mask."""

    top_k: int = Field(default=5, ge=1, le=1000)


class GenerationParameters(StrictModel):
    """Decoding options; decoding is greedy unless `do_sample`."""

    max_new_tokens: int = Field(default=64, ge=1, le=MAX_NEW_TOKENS)
    do_sample: bool = False
    temperature: float = Field(default=1.0, gt=0, le=100)
    top_k: int = Field(default=50, ge=0, le=100_000)
    top_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0, le=100)


class TextGenerationParameters(GenerationParameters):
    """`return_full_text` puts the prompt in front of the continuation, which ends before a text of `stop`.

    The penalties are those of OpenAI's API. Sampling with the same `seed` repeats. `ignore_eos` goes on after
    the token with which the model ends a text.
    """

    return_full_text: bool = False
    min_p: float = Field(default=0.0, ge=0, le=1)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(2**53), le=2**53)
    stop: list[StopText] = Field(default_factory=list, max_length=16)
    ignore_eos: bool = False


class Text2TextGenerationParameters(GenerationParameters):
    """`prefix` goes in front of each text, as T5 models expect ("summarize: ")."""

    num_beams: int = Field(default=1, ge=1, le=16)
    prefix: str = Field(default="", max_length=500)


class StatedGenerationParameters(Text2TextGenerationParameters):
    """What is not given is as the model states it; the defaults here are for models that state nothing.

    Of `max_new_tokens` and `max_length`, which counts the first token of the decoder too, the former wins.
    """

    min_length: int | None = Field(default=None, ge=0, le=MAX_NEW_TOKENS)
    max_length: int | None = Field(default=None, ge=2, le=MAX_NEW_TOKENS)
    length_penalty: float | None = Field(default=None, ge=-100, le=100)
    no_repeat_ngram_size: int | None = Field(default=None, ge=0, le=1000)
    # Not "never" of transformers: a schema of Kubernetes cannot say "a boolean or this text".
    early_stopping: bool | None = None


class SummarizationParameters(StatedGenerationParameters):
    """Those of a model that states its own."""


class TranslationParameters(StatedGenerationParameters):
    """From and into which language, by the names of the model's tokenizer: eng_Latn, en_XX or en."""

    src_lang: Language | None = None
    tgt_lang: Language | None = None


class QuestionAnsweringParameters(StrictModel):
    """How the context is split into windows, and which parts of it may be an answer; lengths are in tokens.

    `top_k` adds the best k answers. `doc_stride` is what two windows share.
    """

    top_k: int | None = Field(default=None, ge=1, le=100)
    max_seq_len: int | None = Field(default=None, ge=8, le=MAX_WINDOW_TOKENS)
    doc_stride: int | None = Field(default=None, ge=0, le=MAX_WINDOW_TOKENS)
    max_answer_len: int = Field(default=15, ge=1, le=MAX_WINDOW_TOKENS)
    handle_impossible_answer: bool = False
    align_to_words: bool = True


TaskParameters = (
    TextClassificationParameters
    | TextRankingParameters
    | TokenClassificationParameters
    | ZeroShotParameters
    | FeatureExtractionParameters
    | FillMaskParameters
    | TextGenerationParameters
    | Text2TextGenerationParameters
    | SummarizationParameters
    | TranslationParameters
    | QuestionAnsweringParameters
)

PARAMETERS: Final[dict[Task, type[TaskParameters]]] = {
    Task.TEXT_CLASSIFICATION: TextClassificationParameters,
    Task.TOKEN_CLASSIFICATION: TokenClassificationParameters,
    Task.ZERO_SHOT_CLASSIFICATION: ZeroShotParameters,
    Task.FEATURE_EXTRACTION: FeatureExtractionParameters,
    Task.TEXT_RANKING: TextRankingParameters,
    Task.FILL_MASK: FillMaskParameters,
    Task.TEXT_GENERATION: TextGenerationParameters,
    Task.TEXT2TEXT_GENERATION: Text2TextGenerationParameters,
    Task.SUMMARIZATION: SummarizationParameters,
    Task.TRANSLATION: TranslationParameters,
    Task.QUESTION_ANSWERING: QuestionAnsweringParameters,
}


class InvalidParameterError(ValueError):
    """The task does not know the parameter, or does not accept its value."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"parameters.{name}: {reason}")
        self.name = name
        self.reason = reason


def parse_parameters(
    task: Task,
    defaults: Mapping[str, ParameterValue],
    overrides: Mapping[str, Any] | None = None,
) -> TaskParameters:
    """Return the task's parameters: `overrides` of a request over the endpoint's `defaults`.

    Raises InvalidParameterError with the first offending name, its value and what is allowed.
    """
    model = PARAMETERS[task]
    try:
        return model.model_validate({**defaults, **(overrides or {})})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = shortened(".".join(str(part) for part in problem["loc"]))
        raise InvalidParameterError(name, _reason(task, problem)) from error


def _reason(task: Task, problem: ErrorDetails) -> str:
    if problem["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(PARAMETERS[task].model_fields))
        return f"{task} does not take it; it takes {allowed}"
    return f"got {quoted(problem['input'])}; {problem['msg']}"
