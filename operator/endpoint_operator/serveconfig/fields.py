"""Each field of the spec: its place in the application entry, and what a change of it does to replicas.

`compiler` writes entries by this table, and `diff` compares two by it. A place is the path of an option. The
options are those of a deployment in `schema`, and `args`, which the application has. Below `args` there are
the fields of ModelArgs, and below `user_config` those of UserConfig.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final

from endpoint_operator.api.profiles import PROFILE_LABEL, Placement
from endpoint_operator.api.rules import value_at
from endpoint_operator.api.types import ModelEndpointSpec


class Effect(StrEnum):
    """What a change does to the running replicas."""

    IN_PLACE = "taken over in place"
    # Without a gap, because max_surge_percent lets a replacement start before the old replica stops.
    REPLACED = "replicas are replaced, without a gap"


# What Serve does when an option of a deployment changes. Ray 2.60, ray/serve/_private:
# - deploy_utils.get_app_code_version: the code version is made of import_path, args and the policies of
# autoscaling_config, as they are written;
# - version.DeploymentVersion.requires_actor_restart: another code version, ray_actor_options or
# max_replicas_per_node. A replica reserves its share of a node's limit when it is scheduled, and keeps it;
# - config.DeploymentConfig, `update_type`: everything else is LightWeight (only the controller changes),
# NeedsReconfigure or NeedsActorReconfigure (the running replica is reconfigured). The code version also
# counts the deployments that have an autoscaling_config. A change between a fixed number of replicas and
# bounds therefore replaces replicas.
_REPLACING: Final = frozenset(
    {"args", "ray_actor_options", "max_replicas_per_node", "autoscaling_config.policy"}
)


def effect_of(place: str) -> Effect:
    """Return what a change at a place does."""
    return Effect.REPLACED if {place, place.partition(".")[0]} & _REPLACING else Effect.IN_PLACE


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Field:
    """One row: the path of the field in the spec, and its place in the entry.

    The value in the entry is that of the spec after `written`, or `placed` of what the profile gives a
    replica. `shown` makes of it what the manifest would say.
    """

    spec: str
    place: str
    written: Callable[[Any], Any] = _as_it_is
    placed: Callable[[Placement], Any] | None = None
    shown: Callable[[Any], Any] = _as_it_is

    def value(self, spec: ModelEndpointSpec, placement: Placement) -> Any:
        if self.placed is not None:
            return self.placed(placement)
        return self.written(value_at(spec, self.spec))


def _node_labels(placement: Placement) -> dict[str, str]:
    return dict(placement.node_labels)


def _profile(labels: Mapping[str, str] | None) -> str | None:
    return (labels or {}).get(PROFILE_LABEL)


def _quantity(size: int | None) -> str | None:
    if size is None:
        return None
    for suffix, factor in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if size % factor == 0:
            return f"{size // factor}{suffix}"
    return str(size)


def _none_for_zero(limit: int) -> int | None:
    # Serve takes 1 to 100, or None for no limit.
    return limit or None


def _zero_for_none(limit: int | None) -> int:
    return limit or 0


FIELDS: Final = (
    Field("model.uri", "args.uri"),
    Field("model.revision", "args.revision"),
    Field("model.tokenSecret", "args.token_secret"),
    Field("model.task", "args.task"),
    Field("model.dtype", "args.dtype"),
    # `diff` compares the parameters one by one.
    Field("model.parameters", "user_config.parameters"),
    Field("resources.profile", "ray_actor_options.label_selector", placed=_node_labels, shown=_profile),
    Field("resources.count", "ray_actor_options.num_gpus", placed=attrgetter("accelerators")),
    Field("resources.cpus", "ray_actor_options.num_cpus", placed=attrgetter("cpus")),
    Field("resources.memory", "ray_actor_options.memory", placed=attrgetter("memory_bytes"), shown=_quantity),
    # The compiler turns equal bounds into num_replicas, without an autoscaling_config.
    Field("scaling.minReplicas", "autoscaling_config.min_replicas"),
    Field("scaling.maxReplicas", "autoscaling_config.max_replicas"),
    Field(
        "scaling.maxReplicasPerNode", "max_replicas_per_node", written=_none_for_zero, shown=_zero_for_none
    ),
    Field("scaling.targetOngoingRequests", "autoscaling_config.target_ongoing_requests"),
    Field("scaling.upscaleDelaySeconds", "autoscaling_config.upscale_delay_s"),
    Field("scaling.downscaleDelaySeconds", "autoscaling_config.downscale_delay_s"),
    Field("batching.maxBatchSize", "user_config.max_batch_size"),
    Field("batching.maxBatchTokens", "user_config.max_batch_tokens"),
    Field("batching.maxWaitMilliseconds", "user_config.max_wait_milliseconds"),
    Field("limits.maxOngoingRequests", "user_config.max_ongoing_requests"),
    Field("limits.maxQueuedRequests", "user_config.max_queued_requests"),
    Field("limits.requestTimeoutSeconds", "user_config.request_timeout_seconds"),
    Field("limits.maxInputTokens", "user_config.max_input_tokens"),
    Field("limits.truncateInput", "user_config.truncate_input"),
    Field("limits.perKey.requestsPerMinute", "user_config.key_requests_per_minute"),
    Field("limits.perKey.tokensPerMinute", "user_config.key_tokens_per_minute"),
    Field("limits.perKey.requestsAtOnce", "user_config.key_requests_at_once"),
    Field("access.allow", "user_config.allow"),
    Field("logging.mode", "user_config.payload_log"),
    Field("logging.percent", "user_config.payload_log_percent"),
    Field("health.periodSeconds", "health_check_period_s"),
    Field("health.timeoutSeconds", "health_check_timeout_s"),
    Field("health.gracefulShutdownSeconds", "graceful_shutdown_timeout_s"),
)

# These decide whether there is an entry, and are no part of it.
NOT_IN_THE_ENTRY: Final = frozenset({"suspend", "runtime"})

# Places that the compiler derives, and the fields that it derives them from. A change there is not reported
# beside a change of one of the fields. What is derived from no field is the same in every entry.
DERIVED: Final[Mapping[str, frozenset[str]]] = {
    "num_replicas": frozenset({"scaling.minReplicas", "scaling.maxReplicas"}),
    "max_ongoing_requests": frozenset({"limits.maxOngoingRequests", "limits.maxQueuedRequests"}),
    "max_queued_requests": frozenset({"limits.maxQueuedRequests"}),
    "ray_actor_options.fallback_strategy": frozenset({"resources.profile"}),
    "autoscaling_config.metrics_interval_s": frozenset(),
    "autoscaling_config.look_back_period_s": frozenset(),
    "autoscaling_config.policy": frozenset({"model.task"}),
}


def values_by_place(spec: ModelEndpointSpec, placement: Placement) -> dict[str, Any]:
    """Return the options of an entry that come from one field each; those of a section are a dictionary."""
    options: dict[str, Any] = {}
    for field in FIELDS:
        section, _, name = field.place.rpartition(".")
        target = options.setdefault(section, {}) if section else options
        target[name] = field.value(spec, placement)
    return options
