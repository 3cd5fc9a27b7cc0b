"""The operator's settings, read from environment variables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from endpoint_operator.api.validation import describe

PREFIX: Final = "OPERATOR_"


class SettingsError(Exception):
    """Settings that cannot be used; the message names each variable, its value and what is allowed."""


class Deadlines(BaseModel):
    """How long, in seconds, things may be as they are."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    settle_seconds: float = Field(
        default=5,
        ge=0,
        description="After KubeRay has seen a new version, until its status is taken to speak of it: two of "
        "its cycles.",
    )
    failed_seconds: float = Field(default=120, ge=0, description="A version may be DEPLOY_FAILED.")
    behind_seconds: float = Field(default=30, gt=0, description="KubeRay may be behind the RayService.")
    missing_seconds: float = Field(default=60, gt=0, description="Ray may lack an application.")
    unschedulable_seconds: float = Field(default=300, ge=0, description="A replica may lack a place.")


class Settings(Deadlines):
    """All settings; each is the environment variable OPERATOR_ and its name in capitals."""

    namespace: str = Field(min_length=1, max_length=63)
    ray_service: str = Field(min_length=1, max_length=47, description="Name of the RayService.")
    profiles_file: Path = Field(description="The catalogue of resource profiles.")
    http_port: int = Field(default=8080, ge=0, le=65535, description="/healthz and /metrics; 0 takes any.")
    debounce_seconds: float = Field(
        default=0.5, ge=0, le=60, description="It must be quiet for so long before a write."
    )
    debounce_limit_seconds: float = Field(
        default=10, ge=0, le=600, description="A write waits for quiet no longer than this."
    )
    resync_seconds: float = Field(
        default=300, gt=0, description="A look at everything, even if all is quiet."
    )
    liveness_seconds: float = Field(
        default=900, gt=0, description="/healthz fails when no look has succeeded for so long."
    )
    request_timeout_seconds: float = Field(default=30, gt=0, description="For one request to the API server.")
    serve_config_alarm_bytes: int = Field(default=700_000, gt=0)
    serve_config_limit_bytes: int = Field(
        default=900_000,
        gt=0,
        description="No newcomer is let in above it; etcd takes 1.5 MB for the whole RayService.",
    )
    serve_api_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="Ray's dashboard, for the numbers of replicas; empty leaves them out.",
    )
    serve_api_token_file: Path | None = Field(default=None, description="Holds the dashboard's token.")
    serve_api_seconds: float = Field(default=10, gt=0, description="Between two looks at the dashboard.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the settings of `environment`, in which an empty variable counts as none.

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
