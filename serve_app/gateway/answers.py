"""What the routes answer, as models for `/openapi.json`; the routes themselves do not use them.

A test holds the answers of a gateway and of a model against them.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel


class Answer(BaseModel):
    """An answer; members that are not listed may come."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class ServerInfo(Answer):
    """What server this is."""

    name: str
    version: str
    extensions: list[str]


class Live(Answer):
    """The server runs."""

    live: bool


class Ready(Answer):
    """The server can route requests."""

    ready: bool


class ListedModel(Answer):
    """One model: the state of its application in Ray Serve, and why it does not answer."""

    name: str
    state: str
    ready: bool = Field(description="Whether requests may be sent; the first one wakes a model that rests.")
    reason: str = Field(description="Why the model does not answer; empty if it does.")
    url: str
    task: str
    replicas: int = Field(description="Replicas that have loaded the model; a model at rest has none.")


class ModelList(Answer):
    """All models, by name."""

    models: list[ListedModel]


class ModelReady(Answer):
    """The model answers requests."""

    name: str
    ready: bool


class TensorMetadata(Answer):
    """A tensor that a model takes or gives; -1 in its shape is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Answer):
    """A model's tensors, and under `parameters` how it runs. A model at rest gives only its name."""

    name: str
    versions: list[str] = Field(default=[])
    platform: str = ""
    inputs: list[TensorMetadata] = Field(default=[])
    outputs: list[TensorMetadata] = Field(default=[])
    parameters: dict[str, Any] = Field(default={})


class PredictAnswer(Answer):
    """With one text, the members of its prediction beside `model`; with several, `predictions` in order."""

    model: str
    predictions: list[dict[str, Any]] = Field(default=[])


class OutputTensor(Answer):
    """One output; its first dimension counts the texts. Without `data`, it follows the JSON as bytes."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] = Field(default=[])


class InferAnswer(Answer):
    """The outputs of an inference request."""

    model_name: str
    id: str = ""
    outputs: list[OutputTensor]


class Vectors(RootModel[list[list[float]]]):
    """One vector for each text, in their order."""


class OfTheTask(RootModel[Any]):
    """What the task's method of `huggingface_hub.InferenceClient` reads."""


class Classes(RootModel[list[Any]]):
    """Labels with their scores, best first: one list, or one for each list of the request."""


class RankedText(Answer):
    """The place of a text in the request, and its score."""

    index: int
    score: float


class RankedTexts(RootModel[list[RankedText]]):
    """The texts of a request with `texts`, best first."""


class RankedDocument(Answer):
    """The place of a document in the request, and its score."""

    index: int
    relevance_score: float


class Usage(Answer):
    """How many tokens the model has read."""

    prompt_tokens: int
    total_tokens: int


class RankedDocuments(Answer):
    """The documents of a request with `documents`, best first."""

    model: str
    results: list[RankedDocument]
    usage: Usage


class Embedding(Answer):
    """One vector, as numbers or as base64 of little-endian float32."""

    object: str
    index: int
    embedding: list[float] | str


class Embeddings(Answer):
    """One vector for each text, in their order."""

    object: str
    model: str
    data: list[Embedding]
    usage: Usage


class ChatChoice(Answer):
    """One message of the assistant, and why it ends."""

    index: int
    message: dict[str, Any]
    logprobs: dict[str, Any] | None
    finish_reason: str


class TextUsage(Usage):
    """How many tokens were read and written."""

    completion_tokens: int


class ChatCompletion(Answer):
    """Messages of the assistant."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TextUsage


class ChatDelta(Answer):
    """What one message has grown by."""

    index: int
    delta: dict[str, Any]
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class ChatCompletionChunk(Answer):
    """What messages have grown by; the chunk that counts tokens has no choices."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatDelta]
    usage: TextUsage | None = None


class TextChoice(Answer):
    """One text, or what it has grown by."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class Completion(Answer):
    """Continuations of texts, or what they have grown by."""

    id: str
    object: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: TextUsage | None = None


class GeneratedText(Answer):
    """A text, and with `details` its tokens."""

    generated_text: str
    details: dict[str, Any] | None = None


class TokenEvent(Answer):
    """One token; the last one comes with the whole text."""

    index: int
    token: dict[str, Any]
    generated_text: str | None
    details: dict[str, Any] | None


class TextOutput(Answer):
    """A text, or what it has grown by."""

    model_name: str
    model_version: str
    text_output: str


class OpenAIModel(Answer):
    """A model that answers."""

    id: str
    object: str
    created: int
    owned_by: str


class OpenAIModels(Answer):
    """The models that answer, and under `models` the names of all."""

    object: str
    data: list[OpenAIModel]
    models: list[str]


class ModelInfo(Answer):
    """A model and its limits, by the names of Text Embeddings Inference."""

    model_id: str
    max_input_length: int
    max_client_batch_size: int
    auto_truncate: bool


class V1Predictions(Answer):
    """One prediction for each instance, in their order."""

    predictions: list[dict[str, Any]]


class RepositoryModel(Answer):
    """A model as Triton's repository lists it."""

    name: str
    version: str
    state: str
    reason: str


class Repository(RootModel[list[RepositoryModel]]):
    """All models."""


class ErrorAnswer(Answer):
    """An error; some have more members for programs."""

    error: str = Field(description="One sentence for people.")
    code: str = Field(description="One word for programs.")


class OpenAIError(Answer):
    """An error with the names of OpenAI; `param` is the member of the request that is wrong."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorAnswer(Answer):
    """An error in the shape of OpenAI."""

    error: OpenAIError
