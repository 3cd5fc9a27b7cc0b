"""Compare two entries of one endpoint: the fields that differ, and what that does to its replicas."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from endpoint_operator.api.profiles import PROFILE_LABEL
from endpoint_operator.serveconfig.schema import Application
from serve_app.contract import MODEL_DEPLOYMENT, ModelArgs, UserConfig


class Effect(StrEnum):
    """What a change does to the running replicas."""

    IN_PLACE = "taken over in place"
    # Without a gap, because max_surge_percent lets a replacement start before the old replica stops.
    REPLACED = "replicas are replaced, without a gap"


# What Serve does when a field of an application or of its deployment changes. Ray 2.60, ray/serve/_private:
# - deploy_utils.get_app_code_version: the code version is made of import_path and args, as they are written;
# - version.DeploymentVersion.requires_actor_restart: another code version, ray_actor_options or
# max_replicas_per_node. A replica reserves its share of a node's limit when it is scheduled, and keeps it;
# - config.DeploymentConfig, `update_type`: everything else is LightWeight (only the controller changes),
# NeedsReconfigure or NeedsActorReconfigure (the running replica is reconfigured). The code version also
# counts the deployments that have an autoscaling_config. A change between a fixed number of replicas and
# bounds therefore replaces replicas. Names, import paths and routes are missing here: entries in which they
# differ are not compared.
EFFECTS: Final[Mapping[str, Effect]] = {
    "args": Effect.REPLACED,
    "ray_actor_options": Effect.REPLACED,
    "max_replicas_per_node": Effect.REPLACED,
    "num_replicas": Effect.IN_PLACE,
    "autoscaling_config": Effect.IN_PLACE,
    "user_config": Effect.IN_PLACE,
    "max_ongoing_requests": Effect.IN_PLACE,
    "max_queued_requests": Effect.IN_PLACE,
    "health_check_period_s": Effect.IN_PLACE,
    "health_check_timeout_s": Effect.IN_PLACE,
    "graceful_shutdown_timeout_s": Effect.IN_PLACE,
}

# Paths in an application's entry, and the fields of the manifest that they come from.
FIELDS: Final[Mapping[str, str]] = {
    "args.uri": "model.uri",
    "args.revision": "model.revision",
    "args.task": "model.task",
    "args.dtype": "model.dtype",
    "ray_actor_options.label_selector": "resources.profile",
    "ray_actor_options.num_gpus": "resources.count",
    "ray_actor_options.num_cpus": "resources.cpus",
    "ray_actor_options.memory": "resources.memory",
    "autoscaling_config.min_replicas": "scaling.minReplicas",
    "autoscaling_config.max_replicas": "scaling.maxReplicas",
    "max_replicas_per_node": "scaling.maxReplicasPerNode",
    "autoscaling_config.target_ongoing_requests": "scaling.targetOngoingRequests",
    "autoscaling_config.upscale_delay_s": "scaling.upscaleDelaySeconds",
    "autoscaling_config.downscale_delay_s": "scaling.downscaleDelaySeconds",
    "user_config.max_batch_size": "batching.maxBatchSize",
    "user_config.max_batch_tokens": "batching.maxBatchTokens",
    "user_config.max_wait_milliseconds": "batching.maxWaitMilliseconds",
    "user_config.max_ongoing_requests": "limits.maxOngoingRequests",
    "user_config.max_queued_requests": "limits.maxQueuedRequests",
    "user_config.request_timeout_seconds": "limits.requestTimeoutSeconds",
    "user_config.max_input_tokens": "limits.maxInputTokens",
    "user_config.truncate_input": "limits.truncateInput",
    "health_check_period_s": "health.periodSeconds",
    "health_check_timeout_s": "health.timeoutSeconds",
    "graceful_shutdown_timeout_s": "health.gracefulShutdownSeconds",
}
# Serve compares these as they are written, so that a default that is written out is a change.
_HASHED: Final = frozenset({"args", "ray_actor_options", "user_config"})
_BOUNDS: Final = frozenset({"scaling.minReplicas", "scaling.maxReplicas"})
_PARAMETERS: Final = "user_config.parameters"

# Paths that also change if one of the others does, and are then not reported.
_FOLLOWS: Final[Mapping[str, frozenset[str]]] = {
    "max_ongoing_requests": frozenset(
        {"user_config.max_ongoing_requests", "user_config.max_queued_requests"}
    ),
    "max_queued_requests": frozenset({"user_config.max_queued_requests"}),
    "ray_actor_options.fallback_strategy": frozenset({"ray_actor_options.label_selector"}),
}


@dataclass(frozen=True)
class Change:
    """One changed field of the manifest; None stands for a value that is not set."""

    field: str
    old: Any
    new: Any
    effect: Effect

    def __str__(self) -> str:
        if self.old is None and self.new is None:
            return f"{self.field}: is written differently, {self.effect}"
        return f"{self.field}: {_word(self.old)} → {_word(self.new)}, {self.effect}"

    def to_json(self) -> dict[str, Any]:
        return {"field": self.field, "from": self.old, "to": self.new, "effect": str(self.effect)}


def diff_entries(live: str, wanted: str) -> tuple[Change, ...]:
    """Return the changes, those that replace replicas first; ValueError if `live` has another shape."""
    running, next_one = Application.model_validate_json(live), Application.model_validate_json(wanted)
    before, after = _leaves(running), _leaves(next_one)
    paths = {path for path in before.keys() & after.keys() if before[path] != after[path]}
    # Only parameters can be added or removed. The autoscaler's other numbers exist only together with it.
    paths |= {path for path in before.keys() ^ after.keys() if path.startswith(_PARAMETERS)}
    told = [path for path in paths if not _implied_by_another(path, paths, before, after)]
    changes = [_change(path, before.get(path), after.get(path)) for path in told]
    if _is_autoscaled(running) != _is_autoscaled(next_one):
        changes = [_replacing(change) if change.field in _BOUNDS else change for change in changes]
    changes += _spelling_only(live, wanted, {path.partition(".")[0] for path in told})
    return tuple(sorted(changes, key=lambda change: (change.effect is not Effect.REPLACED, change.field)))


def _leaves(application: Application) -> dict[str, Any]:
    """Return the values of an entry by path, including defaults."""
    (deployment,) = application.deployments
    if deployment.name != MODEL_DEPLOYMENT:
        raise ValueError(f"the deployment is named {deployment.name!r}")
    tunables = UserConfig.model_validate(deployment.user_config or {}).model_dump(mode="json")
    parameters = tunables.pop("parameters")
    dumped = deployment.model_dump(mode="json", exclude={"name"})
    fixed = dumped.pop("num_replicas")
    scaling = dumped["autoscaling_config"] or {"min_replicas": fixed, "max_replicas": fixed}
    args = ModelArgs.model_validate(application.args).model_dump(mode="json")
    sections = dumped | {"args": args, "user_config": tunables, "autoscaling_config": scaling}
    leaves = {f"{_PARAMETERS}.{name}": value for name, value in parameters.items()}
    for root, value in sections.items():
        if isinstance(value, dict):
            leaves |= {f"{root}.{key}": part for key, part in value.items()}
        else:
            leaves[root] = value
    return leaves


def _is_autoscaled(application: Application) -> bool:
    return application.deployments[0].autoscaling_config is not None


def _replacing(change: Change) -> Change:
    return replace(change, effect=Effect.REPLACED)


def _spelling_only(live: str, wanted: str, told: Collection[str]) -> list[Change]:
    """Return fields that mean the same but are written differently, which Serve takes for a change."""
    before, after = _written(live), _written(wanted)
    roots = [root for root in before.keys() | after.keys() if before.get(root) != after.get(root)]
    return [_change(root, None, None) for root in roots if root in _HASHED and root not in told]


def _written(entry: str) -> dict[str, Any]:
    application = json.loads(entry)
    return {"args": application.get("args"), **application["deployments"][0]}


def _implied_by_another(
    path: str, changed: set[str], before: Mapping[str, Any], after: Mapping[str, Any]
) -> bool:
    if path == "ray_actor_options.num_gpus" and not (before[path] and after[path]):
        # Between a profile with accelerators and one without, spec.resources.count itself does not change.
        return "ray_actor_options.label_selector" in changed
    return bool(_FOLLOWS.get(path, frozenset()) & changed)


def _change(path: str, old: Any, new: Any) -> Change:
    shown = _SHOWN.get(path, _as_it_is)
    return Change(_field(path), shown(old), shown(new), EFFECTS[path.partition(".")[0]])


def _field(path: str) -> str:
    if path.startswith(f"{_PARAMETERS}."):
        return f"model.parameters.{path.removeprefix(f'{_PARAMETERS}.')}"
    # Other paths differ only after an update of the operator or an edit by hand.
    return FIELDS.get(path, f"{path} of the Serve config")


def _word(value: Any) -> str:
    return "unset" if value in (None, "") else json.dumps(value, ensure_ascii=False).strip('"')


def _as_it_is(value: Any) -> Any:
    return value


def _profile(labels: Mapping[str, str] | None) -> str | None:
    return (labels or {}).get(PROFILE_LABEL)


def _limit(replicas: int | None) -> int:
    return replicas or 0


def _quantity(size: int | None) -> str | None:
    if size is None:
        return None
    for suffix, factor in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if size % factor == 0:
            return f"{size // factor}{suffix}"
    return str(size)


_SHOWN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "ray_actor_options.label_selector": _profile,
    "ray_actor_options.memory": _quantity,
    "max_replicas_per_node": _limit,
}
