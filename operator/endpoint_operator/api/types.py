"""ModelEndpoint v1alpha1 as frozen models; the CRD and all checks are derived from them. Pure."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from endpoint_operator.api.rules import MEMORY_RULE, NAME_PATTERN, URI_PATTERN, Rule, at_most, matches
from serve_app.contract import GATEWAY_APPLICATION, Dtype, ParameterValue, PayloadLog, SecretName, TaskField
from serve_app.parameters import InvalidParameterError, parse_parameters

GROUP: Final = "serving.modelendpoint.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "ModelEndpoint"
PLURAL: Final = "modelendpoints"

# The default profile. It has no accelerators, on a cluster as well as on a local machine.
CPU_PROFILE: Final = "cpu"

ProfileName = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class ApiModel(BaseModel):
    """A frozen, strict part of the resource, camelCase outside and snake_case inside."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        protected_namespaces=(),
    )

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        for rule in self.RULES:
            if not rule.holds(self):
                raise PydanticCustomError(
                    "rule", "{complaint}", {"complaint": rule.complaint(self), "field": rule.fields[0]}
                )
        return self


class ModelSource(ApiModel):
    """Which model is served, for what task."""

    uri: str = Field(
        min_length=1,
        max_length=512,
        description="Where the model is: hf://org/name, file:///folder, pvc://claim/folder or "
        "package://python_package/folder.",
    )
    revision: str = Field(
        default="",
        max_length=128,
        pattern=r"^[A-Za-z0-9._/-]*$",
        description="Commit (40 hexadecimal digits) or tag of an hf:// model; pin it, or a restart "
        "may serve other weights.",
    )
    token_secret: SecretName = Field(
        default="",
        description="Secret with the token for an hf:// model, one of those that the chart lists in "
        "hub.tokenSecrets; without it, the release's token.",
    )
    task: TaskField = Field(description="Hugging Face task id.")
    dtype: Dtype = Field(default="auto", description="Number format of the weights in memory.")
    parameters: dict[str, ParameterValue] = Field(
        default_factory=dict,
        max_length=32,
        description="Defaults for the task's parameters; a request may override each of them.",
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        matches(
            "uri",
            URI_PATTERN,
            "uri must be hf://org/name, file:///folder, pvc://claim/folder or package://package/folder",
        ),
        Rule(
            ("uri",),
            r"!self.uri.matches(r'(^|/)\.\.?(/|$)')",
            "uri must not contain the path segments '.' or '..'",
            lambda model: not {".", ".."} & set(model.uri.split("/")),
        ),
        Rule(
            ("revision", "uri"),
            "self.revision == '' || self.uri.startsWith('hf://')",
            "revision applies to hf:// models only; remove it",
            lambda model: model.revision == "" or model.uri.startswith("hf://"),
        ),
        Rule(
            ("tokenSecret", "uri"),
            "self.tokenSecret == '' || self.uri.startsWith('hf://')",
            "tokenSecret applies to hf:// models only; remove it",
            lambda model: model.token_secret == "" or model.uri.startswith("hf://"),
        ),
    )

    @model_validator(mode="after")
    def _know_the_parameters(self) -> Self:
        # Not in CEL: the CRD has the parameters of all tasks, and this check those of one.
        try:
            parse_parameters(self.task, self.parameters)
        except InvalidParameterError as error:
            raise PydanticCustomError(
                "rule", "{complaint}", {"complaint": error.reason, "field": f"parameters.{error.name}"}
            ) from error
        return self


class Resources(ApiModel):
    """What one replica asks for."""

    profile: ProfileName = Field(default=CPU_PROFILE, description="Name of a resource profile.")
    count: float = Field(
        default=1,
        ge=0.01,
        le=16,
        description="Accelerators for one replica; below 1, replicas share one. In a profile without "
        "accelerators it stays at its default.",
    )
    cpus: float = Field(default=1, ge=0.01, le=256, description="CPU cores for one replica.")
    memory: str = Field(default="2Gi", max_length=16, description="Main memory for one replica.")

    RULES: ClassVar[tuple[Rule, ...]] = (
        MEMORY_RULE,
        Rule(
            ("count",),
            "self.count < 1.0 || self.count == double(int(self.count))",
            "count must be a whole number, or a fraction below 1",
            lambda model: model.count < 1 or model.count == int(model.count),
        ),
    )


class Scaling(ApiModel):
    """How many replicas there are, and when their number changes."""

    min_replicas: int = Field(default=1, ge=0, le=100, description="0 lets an idle model go away.")
    max_replicas: int = Field(default=1, ge=1, le=100)
    max_replicas_per_node: int = Field(
        default=0, ge=0, le=100, description="Replicas on one node of Ray; 0 sets no limit."
    )
    target_ongoing_requests: int = Field(
        default=8, ge=1, le=10_000, description="Requests in one replica that the autoscaler aims at."
    )
    upscale_delay_seconds: float = Field(default=5, ge=0, le=3600)
    downscale_delay_seconds: float = Field(default=300, ge=0, le=86_400)

    RULES: ClassVar[tuple[Rule, ...]] = (
        at_most("minReplicas", "maxReplicas", "minReplicas must not be above maxReplicas"),
    )


class Batching(ApiModel):
    """What may go through the model at once."""

    max_batch_size: int = Field(default=16, ge=1, le=1024, description="Texts in one batch.")
    max_batch_tokens: int = Field(
        default=4096, ge=1, le=1_048_576, description="Tokens in one batch, padding included."
    )
    max_wait_milliseconds: int = Field(
        default=0, ge=0, le=1000, description="How long an idle model waits for a batch to fill."
    )


class PerKeyLimits(ApiModel):
    """What each key may ask of the endpoint; without keys, all clients together."""

    requests_per_minute: int = Field(default=0, ge=0, le=1_000_000, description="0 sets no limit.")
    tokens_per_minute: int = Field(
        default=0, ge=0, le=1_000_000_000, description="Tokens read and generated; 0 sets no limit."
    )
    requests_at_once: int = Field(default=0, ge=0, le=100_000, description="0 sets no limit.")


class Limits(ApiModel):
    """What a client may ask of one replica."""

    max_ongoing_requests: int = Field(default=64, ge=1, le=10_000, description="Requests in work.")
    max_queued_requests: int = Field(
        default=256, ge=1, le=100_000, description="Requests waiting; more are answered 429."
    )
    request_timeout_seconds: float = Field(default=60, ge=0.1, le=3600)
    max_input_tokens: int = Field(default=512, ge=1, le=1_048_576, description="Tokens of one text.")
    truncate_input: bool = Field(
        default=False, description="Cut longer texts at maxInputTokens instead of answering 422."
    )
    per_key: PerKeyLimits = Field(default_factory=PerKeyLimits)


class Access(ApiModel):
    """Who may ask the endpoint."""

    allow: list[Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]] = Field(
        default=[],
        max_length=256,
        description="Names of keys; without any, all that the release lets in.",
    )


class Health(ApiModel):
    """How a sick replica is noticed, and how a healthy one leaves."""

    period_seconds: float = Field(default=10, ge=1, le=3600)
    timeout_seconds: float = Field(default=30, ge=1, le=3600)
    graceful_shutdown_seconds: float = Field(default=20, ge=0, le=3600)


class Logging(ApiModel):
    """What is logged of requests and answers."""

    mode: PayloadLog = Field(
        default="none",
        description="metadata: events of all requests, without texts; sampled: of a part, with their bodies.",
    )
    percent: float = Field(default=1, ge=0, le=100, description="How many of the requests sampled logs.")


class ModelEndpointSpec(ApiModel):
    """What the author wants."""

    model: ModelSource
    resources: Resources = Field(default_factory=Resources)
    scaling: Scaling = Field(default_factory=Scaling)
    batching: Batching = Field(default_factory=Batching)
    limits: Limits = Field(default_factory=Limits)
    access: Access = Field(default_factory=Access)
    health: Health = Field(default_factory=Health)
    logging: Logging = Field(default_factory=Logging)
    suspend: bool = Field(default=False, description="Keep the object, serve nothing.")
    runtime: str = Field(
        default="",
        # As long as the name of a RayService may be.
        max_length=47,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
        description="RayService that serves the model; without it, the namespace's default one.",
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        at_most(
            "batching.maxBatchSize",
            "limits.maxOngoingRequests",
            "batching.maxBatchSize must not be above limits.maxOngoingRequests: a batch could never fill",
        ),
    )


def _timestamp_text(value: Any) -> Any:
    """Accept the datetime that YAML makes of an unquoted timestamp, and the null that templates leave."""
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime) else value


class Metadata(BaseModel):
    """The part of Kubernetes' object metadata that is read."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, alias_generator=to_camel, validate_by_name=True
    )

    name: str = Field(min_length=1, max_length=253)
    namespace: str = "default"
    creation_timestamp: Annotated[str, BeforeValidator(_timestamp_text)] = ""


class ModelEndpoint(ApiModel):
    """One model to serve."""

    api_version: Literal["serving.modelendpoint.dev/v1alpha1"]
    kind: Literal["ModelEndpoint"]
    metadata: Metadata
    spec: ModelEndpointSpec
    # Accepted because a manifest that was read from a cluster has one; it is not input.
    status: dict[str, Any] | None = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        matches(
            "metadata.name",
            NAME_PATTERN,
            "metadata.name must be at most 40 characters of a-z, 0-9 and '-', and begin and end "
            "with a letter or digit",
        ),
        Rule(
            ("metadata.name",),
            f"self.metadata.name != '{GATEWAY_APPLICATION}'",
            f"metadata.name must not be '{GATEWAY_APPLICATION}': the gateway has that name",
            lambda endpoint: endpoint.metadata.name != GATEWAY_APPLICATION,
        ),
    )

    @property
    def name(self) -> str:
        """Name of the endpoint and of its Serve application."""
        return self.metadata.name

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name, which identify the object in a cluster."""
        return (self.metadata.namespace, self.metadata.name)


def parse_endpoint(manifest: Any) -> ModelEndpoint:
    """Parse a decoded manifest.

    Raises pydantic.ValidationError, which `validation.describe` turns into sentences.
    """
    return ModelEndpoint.model_validate(manifest)
