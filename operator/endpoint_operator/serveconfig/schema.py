"""The part of Ray Serve's configuration that is written, as strict models.

Ray silently drops unknown keys, so a mistyped key must fail here. Field names, meanings and defaults are
those of `ray.serve.schema.ServeDeploySchema`; a test compares the output with it. Defaults are not written,
because all endpoints share one Kubernetes object, whose size is limited.
"""

from typing import Any, Literal

from pydantic import Field

from serve_app.contract import StrictModel


class ScalingPolicy(StrictModel):
    """The function that says how many replicas there should be; an entry can name no other one."""

    policy_function: Literal["serve_app.scaling:replicas_for"]


class AutoscalingConfig(StrictModel):
    """Bounds, target and delays (in seconds) of Serve's autoscaler; without a policy, it counts requests."""

    min_replicas: int
    max_replicas: int
    target_ongoing_requests: int
    upscale_delay_s: float
    downscale_delay_s: float
    metrics_interval_s: float
    look_back_period_s: float
    policy: ScalingPolicy | None = None


class NodeLabels(StrictModel):
    """Labels that a node may have instead of those of `label_selector`."""

    label_selector: dict[str, str]


class RayActorOptions(StrictModel):
    """What one replica reserves (CPU cores, accelerators, bytes of memory), and the labels of its node."""

    num_cpus: float
    num_gpus: float = 0
    memory: int
    label_selector: dict[str, str] = Field(default_factory=dict)
    fallback_strategy: tuple[NodeLabels, ...] | None = None


class Deployment(StrictModel):
    """Settings of one deployment, with either a number of replicas or bounds for it.

    Settings that are the same for every deployment are in the code of `serve_app`.
    """

    name: str
    num_replicas: int | None = None
    autoscaling_config: AutoscalingConfig | None = None
    max_replicas_per_node: int | None = None
    ray_actor_options: RayActorOptions
    user_config: dict[str, Any] | None = None
    max_ongoing_requests: int
    max_queued_requests: int
    health_check_period_s: float = 10.0
    health_check_timeout_s: float = 30.0
    graceful_shutdown_timeout_s: float = 20.0


class Application(StrictModel):
    """One Serve application."""

    name: str
    route_prefix: str
    import_path: str
    args: dict[str, Any]
    deployments: tuple[Deployment, ...]
