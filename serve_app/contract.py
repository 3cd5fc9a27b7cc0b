"""What the operator and the Serve application agree on: names, arguments and user config.

Both sides import this module, so it may import pydantic and nothing heavier.
"""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

BUILD_IMPORT_PATH: Final = "serve_app.app:build"
GATEWAY_IMPORT_PATH: Final = "serve_app.gateway:build_gateway"

# Ray's head imports it when it reads a Serve config, and refuses the whole config if it cannot.
SCALING_POLICY_IMPORT_PATH: Final = "serve_app.scaling:replicas_for"

GRPC_SERVICE_IMPORT_PATH: Final = "serve_app.rpc.service:add_inference_service"
GRPC_PORT: Final = 9000

MODEL_DEPLOYMENT: Final = "Model"
GATEWAY_DEPLOYMENT: Final = "Gateway"

# Serve options that are the same for every deployment. Options that differ are in the Serve config.
DEPLOYMENT_OPTIONS: Final[dict[str, Any]] = {
    # A replacement starts before the old replica stops, so that a change has no gap.
    "max_surge_percent": 100,
    "backpressure_config": {"status_code": 429, "retry_after_s": 1},
    "logging_config": {"enable_access_log": False},
}

# The gateway is an application like any other, so no endpoint may take its name.
GATEWAY_APPLICATION: Final = "gateway"

# Where the gateway says what models have used, to whoever has Ray's own token.
USAGE_PATH: Final = "/v2/usage"
MINUTE_SECONDS: Final = 60

# Environment variable of Ray's processes: which modules a node's fork server imports for its workers.
FORK_WORKERS_VARIABLE: Final = "MODEL_ENDPOINTS_FORK_WORKERS"

# Environment variable of Ray's processes: the folder to use in place of /models on a machine without it.
MODELS_VARIABLE: Final = "MODEL_ENDPOINTS_MODELS"

# Environment variable of Ray's processes: the folder that says who may ask (access/folder.py).
ACCESS_VARIABLE: Final = "MODEL_ENDPOINTS_ACCESS"

# Environment variable of Ray's processes: the file, FIFO or terminal for access and payload logs.
LINES_VARIABLE: Final = "MODEL_ENDPOINTS_LINES"

# Environment variable of Ray's processes: with 1, replicas and the gateway write a line for each request.
ACCESS_LOG_VARIABLE: Final = "MODEL_ENDPOINTS_ACCESS_LOG"

# Environment variable of Ray's processes: with 1, clients are told what the models that they may ask have
# used. A cluster's gateway tells it to the operator only.
OPEN_USAGE_VARIABLE: Final = "MODEL_ENDPOINTS_OPEN_USAGE"


class ForkWorkers(StrEnum):
    """How Ray's workers start."""

    # Each imports its own modules, which is Ray's default.
    OFF = "off"
    # Forked from a process with the modules of Serve's own actors: for nodes without models.
    SERVE = "serve"
    # Forked from a process that has imported torch and transformers too.
    MODELS = "models"


MAX_BODY_BYTES: Final = 2 * 1024 * 1024
MAX_TEXTS_PER_REQUEST: Final = 256
# Tokens of all sequences of a request, with those that it may generate: minutes of work of a processor.
MAX_TOKENS_PER_REQUEST: Final = 2**20
# Characters of answers that may be many times as long as the request.
MAX_ANSWER_CHARACTERS: Final = 16 * 2**20


class Task(StrEnum):
    """Hugging Face task ids that can be served."""

    TEXT_CLASSIFICATION = "text-classification"
    TOKEN_CLASSIFICATION = "token-classification"
    ZERO_SHOT_CLASSIFICATION = "zero-shot-classification"
    FEATURE_EXTRACTION = "feature-extraction"
    TEXT_RANKING = "text-ranking"
    FILL_MASK = "fill-mask"
    TEXT_GENERATION = "text-generation"
    TEXT2TEXT_GENERATION = "text2text-generation"
    SUMMARIZATION = "summarization"
    TRANSLATION = "translation"
    QUESTION_ANSWERING = "question-answering"


# What is logged of requests and answers: nothing, no texts, or the bodies of a part of them.
PayloadLog = Literal["none", "metadata", "sampled"]

Dtype = Literal["auto", "float32", "float16", "bfloat16", "int8"]

# A parameter's value in a manifest or a request; the task's class in parameters.py says what is allowed.
ParameterValue = bool | int | float | str | list[str]


def grpc_options(port: int = GRPC_PORT) -> dict[str, Any]:
    """Return the options with which Ray Serve serves gRPC at `port`."""
    return {"port": port, "grpc_servicer_functions": [GRPC_SERVICE_IMPORT_PATH]}


def route_prefix(name: str) -> str:
    """Return the HTTP path of the endpoint `name`."""
    return f"/v2/models/{name}"


class StrictModel(BaseModel):
    """A frozen model that refuses unknown fields, implicit conversions and non-finite numbers."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


# Ray and YAML hand over plain strings; only the enum's own values pass.
TaskField = Annotated[Task, Field(strict=False)]

# The name of a Kubernetes Secret, which is also that of a file; empty for none.
SecretName = Annotated[str, Field(max_length=253, pattern=r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$")]


class ModelArgs(StrictModel):
    """Identity of one model application: a change restarts its replicas."""

    name: str
    uri: str
    revision: str = ""
    task: TaskField
    dtype: Dtype = "auto"
    token_secret: SecretName = ""


class UserConfig(StrictModel):
    """Settings that Serve applies to running replicas, without a restart."""

    max_batch_size: int = 16
    max_batch_tokens: int = 4096
    max_wait_milliseconds: int = 0
    max_ongoing_requests: int = 64
    max_queued_requests: int = 256
    request_timeout_seconds: float = 60.0
    max_input_tokens: int = 512
    truncate_input: bool = False
    payload_log: PayloadLog = "none"
    payload_log_percent: float = 1.0
    parameters: dict[str, ParameterValue] = Field(default_factory=dict)
    # Names of the keys that may ask; all of them if it is empty.
    allow: list[str] = Field(default_factory=list)
    # What each key may ask; 0 sets no limit.
    key_requests_per_minute: int = 0
    key_tokens_per_minute: int = 0
    key_requests_at_once: int = 0

    @property
    def max_requests(self) -> int:
        """How many requests may be inside one replica, running and queued together."""
        return self.max_ongoing_requests + self.max_queued_requests


class UsagePart(BaseModel):
    """A part of the gateway's report on usage; members that another version adds are ignored."""

    model_config = StrictModel.model_config | ConfigDict(extra="ignore")


class UsageMinute(UsagePart):
    """What replicas did in one minute, which begins at a multiple of 60 seconds since 1970.

    A replica counts its own seconds by its own clock. It computes while at least one batch runs; a batch
    counts in the minute in which it ends.
    """

    begin: int
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    compute_seconds: float = 0.0
    replica_seconds: float = 0.0


class ModelUsage(UsagePart):
    """The usage of a model: what is known of the last two hours, and until when nothing is added to it."""

    until: int
    minutes: list[UsageMinute]


class UsageReport(UsagePart):
    """The answer of `GET /v2/usage`: seconds since 1970, and the models that have had replicas."""

    now: int
    models: dict[str, ModelUsage]


class GatewayArgs(StrictModel):
    """The gateway takes no arguments; Serve requires a builder to accept some."""
