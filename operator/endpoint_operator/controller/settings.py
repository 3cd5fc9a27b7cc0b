"""The operator's settings, read from environment variables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from endpoint_operator.api.validation import describe
from endpoint_operator.controller.leadership.standing import LONGEST_SECONDS

PREFIX: Final = "OPERATOR_"


class SettingsError(Exception):
    """The settings cannot be used; the message names each variable, its value and what is allowed."""


class Deadlines(BaseModel):
    """How long, in seconds, a state may last before the operator acts or reports it."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    settle_seconds: float = Field(
        default=5,
        ge=0,
        description="Grace period after KubeRay has observed a new Serve config, before its reported status "
        "is trusted for that config; two KubeRay polls.",
    )
    failed_seconds: float = Field(
        default=120, ge=0, description="DEPLOY_FAILED of a version, before it is rolled back."
    )
    retry_seconds: float = Field(
        default=120, gt=0, description="First pause before a version that failed is tried again; it doubles."
    )
    retry_limit_seconds: float = Field(default=3600, gt=0, description="Longest such pause.")
    behind_seconds: float = Field(
        default=30, gt=0, description="KubeRay behind the RayService, or a silent dashboard."
    )
    missing_seconds: float = Field(
        default=60,
        gt=0,
        description="An application that Ray does not have as it was sent, before it is sent again.",
    )
    unschedulable_seconds: float = Field(
        default=300, ge=0, description="An unschedulable replica, before it is stalled."
    )


class Settings(Deadlines):
    """All settings; the environment variable of each is OPERATOR_ and its name in capitals."""

    namespace: str = Field(min_length=1, max_length=63)
    ray_service: str = Field(min_length=1, max_length=47, description="Name of the RayService.")
    profiles_file: Path = Field(description="The file of resource profiles.")
    default_runtime: bool = Field(
        default=True, description="Whether it also serves endpoints whose spec names no runtime."
    )
    service_port: int = Field(
        default=8000, ge=1, le=65535, description="Port of the RayService's Service, for status.url."
    )
    external_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s/]+[^\s]*)?$",
        description="Address at which clients reach the models, for status.url; the Service's own if empty.",
    )
    lease: str = Field(
        default="",
        max_length=63,
        description="Name of the Lease whose holder writes, of several operators; empty: it needs none.",
    )
    lease_seconds: int = Field(
        default=15,
        ge=2,
        le=LONGEST_SECONDS,
        description="How long nobody leads after the leader was lost.",
    )
    keys_secret: str = Field(
        default="", max_length=253, description="Secret with the keys of clients; empty: it is not followed."
    )
    access_config_map: str = Field(
        default="", max_length=253, description="ConfigMap that says whether clients need keys."
    )
    pod_selector: str = Field(
        default="", description="Labels of Ray's pods, which mount both; as in kubectl get pods -l."
    )
    http_port: int = Field(default=8080, ge=0, le=65535, description="/healthz and /metrics; 0 takes any.")
    debounce_seconds: float = Field(
        default=0.5, ge=0, le=60, description="Time without events before a reconciliation."
    )
    debounce_limit_seconds: float = Field(
        default=10, ge=0, le=600, description="Longest delay because of events that do not stop."
    )
    resync_seconds: float = Field(
        default=300, gt=0, description="Interval of full reconciliations without any event."
    )
    liveness_seconds: float = Field(
        default=900, gt=0, description="/healthz fails after this time without a successful reconciliation."
    )
    request_timeout_seconds: float = Field(default=30, gt=0, description="For one request to the API server.")
    serve_config_alarm_bytes: int = Field(default=700_000, gt=0)
    serve_config_limit_bytes: int = Field(
        default=900_000,
        gt=0,
        description="No endpoint is added above it; etcd accepts 1.5 MB for the whole RayService.",
    )
    serve_api_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="URL of Ray's dashboard, which says what Serve does; empty for none.",
    )
    serve_api_token_file: Path | None = Field(default=None, description="Holds the dashboard's token.")
    serve_api_seconds: float = Field(default=10, gt=0, description="Interval of requests to the dashboard.")
    usage_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="URL of Ray Serve, whose gateway says what models have used; empty for none.",
    )
    usage_seconds: float = Field(default=60, gt=0, description="Interval of requests to it.")

    @model_validator(mode="after")
    def _look_often_enough(self) -> Self:
        if self.resync_seconds > self.liveness_seconds:
            complaint = (
                f"must not be above LIVENESS_SECONDS, {self.liveness_seconds:g}, or an operator without "
                f"events counts as dead; got {self.resync_seconds:g}"
            )
            fields = {"complaint": complaint, "field": "resync_seconds"}
            raise PydanticCustomError("rule", "{complaint}", fields)
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings from `environment`, in which an empty variable counts as missing.

        Raises SettingsError.
        """
        given = {
            name: environment[variable]
            for name in cls.model_fields
            if environment.get(variable := f"{PREFIX}{name.upper()}")
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            sentences = (
                f"{PREFIX}{str(problem.path[0]).upper()}: {problem.message}"
                for problem in describe(error, cls)
            )
            raise SettingsError("; ".join(sentences)) from error
