"""What `/openapi.json` says of each route beside its path and method: a sentence, and models.

A verb that protocols answer has one row, for the model's own path and for the path without a model's name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydantic import BaseModel

from serve_app.contract import USAGE_PATH, UsageReport
from serve_app.gateway import answers
from serve_app.gateway.answers import ErrorAnswer
from serve_app.gateway.repository import IndexRequest
from serve_app.http.entrances import ENTRANCES
from serve_app.protocols.generation.chat_completions import CHAT_COMPLETIONS, ChatRequest
from serve_app.protocols.generation.completions import COMPLETIONS, CompletionRequest
from serve_app.protocols.generation.text_generation_inference import (
    GENERATE,
    GENERATE_STREAM,
    GenerateRequest,
)
from serve_app.protocols.generation.triton_generate import TritonRequest
from serve_app.protocols.hugging_face import InferenceRequest
from serve_app.protocols.kserve_v1 import V1_PREDICT, V1Request
from serve_app.protocols.open_inference import InferRequest
from serve_app.protocols.openai_embeddings import EmbeddingsRequest
from serve_app.protocols.predict import PredictRequest
from serve_app.protocols.rerank import DocumentsRequest, TextsRequest
from serve_app.protocols.tei import ClassifyRequest, EmbedRequest

Models = Sequence[type[BaseModel]]

OPENAPI_PATH: Final = "/openapi.json"
_MODEL: Final = "/v2/models/{name}"
# Statuses of routes that ask Serve, of lists of models, and of what asks a replica without a body.
_OF_SERVE: Final = (500, 503)
_OF_LISTS: Final = (401, *_OF_SERVE)
_OF_QUERIES: Final = (401, 403, 404, 408, 429, 500, 503)


@dataclass(frozen=True)
class Operation:
    """One route: a sentence, the models, and what may go wrong.

    Of several `requests` or `answers`, one fits; without `answers`, what comes is no JSON. `errors` are
    statuses, and None means all of them. `binary` says that bodies in the form of Triton's binary tensors
    are taken and given too. `streamed` are the data of events, if the answer may be a stream.
    """

    summary: str
    answers: Models = ()
    requests: Models = ()
    errors: Sequence[int] | None = ()
    error: type[BaseModel] = ErrorAnswer
    binary: bool = False
    streamed: Models = ()


def _verb(summary: str, requests: Models, answer: Models, *, binary: bool = False) -> Operation:
    return Operation(summary, answer, requests, errors=None, binary=binary)


_RERANK: Final = _verb(
    "Order texts by how well they answer a query, as Text Embeddings Inference, Jina and Cohere do",
    (TextsRequest, DocumentsRequest),
    (answers.RankedTexts, answers.RankedDocuments),
)
_VERBS: Final[Mapping[str, Operation]] = {
    "": Operation(
        "Ask a model by Hugging Face's inference API",
        (answers.OfTheTask,),
        (InferenceRequest,),
        errors=None,
        streamed=(answers.TokenEvent,),
    ),
    "predict": _verb(
        "Ask a model in plain JSON; texts are classified as Text Embeddings Inference does, too",
        (PredictRequest, ClassifyRequest),
        (answers.PredictAnswer, answers.Classes),
    ),
    "infer": _verb(
        "Ask a model by the Open Inference Protocol v2", (InferRequest,), (answers.InferAnswer,), binary=True
    ),
    "embed": _verb("Embed texts as Text Embeddings Inference does", (EmbedRequest,), (answers.Vectors,)),
    "rerank": _RERANK,
    "v1/rerank": _RERANK,
    "v2/rerank": _RERANK,
    "v1/embeddings": Operation(
        "Embed texts as OpenAI does",
        (answers.Embeddings,),
        (EmbeddingsRequest,),
        errors=None,
        error=answers.OpenAIErrorAnswer,
    ),
    CHAT_COMPLETIONS: Operation(
        "Continue a conversation as OpenAI does",
        (answers.ChatCompletion,),
        (ChatRequest,),
        errors=None,
        error=answers.OpenAIErrorAnswer,
        streamed=(answers.ChatCompletionChunk,),
    ),
    COMPLETIONS: Operation(
        "Continue texts as OpenAI does",
        (answers.Completion,),
        (CompletionRequest,),
        errors=None,
        error=answers.OpenAIErrorAnswer,
        streamed=(answers.Completion,),
    ),
    GENERATE: Operation(
        "Continue a text as Text Generation Inference and Triton do",
        (answers.GeneratedText, answers.TextOutput),
        (GenerateRequest, TritonRequest),
        errors=None,
        streamed=(answers.TokenEvent,),
    ),
    GENERATE_STREAM: Operation(
        "Continue a text while it is read, as Text Generation Inference and Triton do",
        (),
        (GenerateRequest, TritonRequest),
        errors=None,
        streamed=(answers.TokenEvent, answers.TextOutput),
    ),
    V1_PREDICT: _verb("Ask a model by KServe's V1 protocol", (V1Request,), (answers.V1Predictions,)),
}
_QUERIES: Final[Mapping[str, Operation]] = {
    "/": Operation("The server's name and version; browsers get a page", (answers.ServerInfo,)),
    "/v2": Operation("The server's name and version", (answers.ServerInfo,)),
    "/health": Operation("Whether the server runs", (answers.Live,)),
    "/v2/health/live": Operation("Whether the server runs", (answers.Live,)),
    "/ready": Operation("Whether the server can route requests", (answers.Ready,), errors=_OF_SERVE),
    "/v2/health/ready": Operation(
        "Whether the server can route requests", (answers.Ready,), errors=_OF_SERVE
    ),
    "/v2/models": Operation("All models with their states", (answers.ModelList,), errors=_OF_LISTS),
    "/v1/models": Operation(
        "The models that answer, as OpenAI lists them",
        (answers.OpenAIModels,),
        errors=_OF_LISTS,
        error=answers.OpenAIErrorAnswer,
    ),
    "/v1/models/{name}": Operation(
        "One model, as OpenAI describes it",
        (answers.OpenAIModel,),
        errors=_OF_QUERIES,
        error=answers.OpenAIErrorAnswer,
    ),
    _MODEL: Operation("A model's tensors, and how it runs", (answers.ModelMetadata,), errors=_OF_QUERIES),
    f"{_MODEL}/info": Operation(
        "What Text Embeddings Inference says of its model", (answers.ModelInfo,), errors=_OF_QUERIES
    ),
    f"{_MODEL}/ready": Operation("Whether a model answers", (answers.ModelReady,), errors=_OF_QUERIES),
    "/page/{file}": Operation("A file of the page for browsers", errors=(404,)),
    USAGE_PATH: Operation(
        "What models have used, minute by minute; needs Ray's own token", (UsageReport,), errors=(404, 500)
    ),
    OPENAPI_PATH: Operation("This document"),
}
_OTHERS: Final[Mapping[str, Operation]] = {
    "/v1/models/{name}:predict": _VERBS[V1_PREDICT],
    "/v2/repository/index": Operation(
        "All models, as Triton's repository lists them",
        (answers.Repository,),
        (IndexRequest,),
        errors=(400, 408, 413, 415, 422, *_OF_LISTS),
    ),
    "/v2/repository/models/{name}/load": Operation("Refused: requests load no model", errors=(400,)),
    "/v2/repository/models/{name}/unload": Operation("Refused: requests unload no model", errors=(400,)),
}
# Paths that name the version; there is one.
_VERSIONS: Final = {
    ("GET", ""): replace(_QUERIES[_MODEL], summary="The same for the one version of the model, 1"),
    ("GET", "/ready"): _QUERIES[f"{_MODEL}/ready"],
    **{("POST", f"/{verb}"): _VERBS[verb] for verb in ("infer", GENERATE, GENERATE_STREAM)},
}

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    **{("GET", path): operation for path, operation in _QUERIES.items()},
    **{("POST", path): _VERBS[path.strip("/")] for path in ENTRANCES if path.strip("/") in _VERBS},
    **{("POST", f"{_MODEL}/{verb}".rstrip("/")): operation for verb, operation in _VERBS.items()},
    **{("POST", path): operation for path, operation in _OTHERS.items()},
    **{
        (method, f"{_MODEL}/versions/{{version}}{below}"): operation
        for (method, below), operation in _VERSIONS.items()
    },
}
"""By method and path; a route that is missing here is in the document without models."""
