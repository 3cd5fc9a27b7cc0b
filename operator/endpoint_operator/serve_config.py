"""The part of Ray Serve's configuration that we write, as strict models.

Ray drops unknown keys without a word, so a mistyped one must fail here. Field names and meanings
are those of `ray.serve.schema.ServeDeploySchema`; a test holds our output against it.
"""

from typing import Any, Literal

from pydantic import Field

from serve_app.contract import StrictModel


class AutoscalingConfig(StrictModel):
    """Bounds, target and delays (seconds) of Serve's autoscaler."""

    min_replicas: int
    max_replicas: int
    target_ongoing_requests: int
    upscale_delay_s: float
    downscale_delay_s: float
    metrics_interval_s: float
    look_back_period_s: float


class NodeLabels(StrictModel):
    """Labels of nodes, as an alternative to those of `label_selector`."""

    label_selector: dict[str, str]


class RayActorOptions(StrictModel):
    """What one replica reserves: cores, accelerators, bytes of memory, and where."""

    num_cpus: float
    num_gpus: float = 0
    memory: int
    label_selector: dict[str, str] = Field(default_factory=dict)
    fallback_strategy: tuple[NodeLabels, ...] | None = None


class BackpressureConfig(StrictModel):
    """How a request above `max_queued_requests` is refused."""

    status_code: Literal[429] = 429
    retry_after_s: int = 1


class LoggingConfig(StrictModel):
    """Logging of one deployment."""

    enable_access_log: bool = False


class Deployment(StrictModel):
    """Overrides of one deployment of an application."""

    name: str
    autoscaling_config: AutoscalingConfig
    ray_actor_options: RayActorOptions
    user_config: dict[str, Any] | None = None
    max_ongoing_requests: int
    max_queued_requests: int
    backpressure_config: BackpressureConfig = BackpressureConfig()
    health_check_period_s: float
    health_check_timeout_s: float
    graceful_shutdown_timeout_s: float
    # A replacement starts before the old replica stops, so that a change has no gap.
    max_surge_percent: int = 100
    logging_config: LoggingConfig = LoggingConfig()


class Application(StrictModel):
    """One Serve application."""

    name: str
    route_prefix: str
    import_path: str
    args: dict[str, Any]
    deployments: tuple[Deployment, ...]
