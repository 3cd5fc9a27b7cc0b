"""Compare two entries of one endpoint: the fields that differ, and what that does to its replicas."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from endpoint_operator.serveconfig.fields import DERIVED, FIELDS, Effect, effect_of
from endpoint_operator.serveconfig.schema import Application
from serve_app.contract import MODEL_DEPLOYMENT, ModelArgs, UserConfig

_BY_PLACE: Final = {field.place: field for field in FIELDS}
# Serve compares these as they are written, so that a default that is written out is a change.
_HASHED: Final = frozenset({"args", "ray_actor_options", "user_config"})
_BOUNDS: Final = frozenset({"scaling.minReplicas", "scaling.maxReplicas"})
_PARAMETERS: Final = "user_config.parameters"


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
    fields = {_field(path) for path in paths}
    told = [path for path in paths if not _implied_by_another(path, fields, before, after)]
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
        return "resources.profile" in changed
    return bool(DERIVED.get(path, frozenset()) & changed)


def _change(path: str, old: Any, new: Any) -> Change:
    field = _BY_PLACE.get(path)
    if field is not None:
        old, new = field.shown(old), field.shown(new)
    return Change(_field(path), old, new, effect_of(path))


def _field(path: str) -> str:
    if path in _BY_PLACE:
        return _BY_PLACE[path].spec
    if path.startswith(f"{_PARAMETERS}."):
        return f"{_BY_PLACE[_PARAMETERS].spec}.{path.removeprefix(f'{_PARAMETERS}.')}"
    # Other paths differ only after an update of the operator or an edit by hand.
    return f"{path} of the Serve config"


def _word(value: Any) -> str:
    return "unset" if value in (None, "") else json.dumps(value, ensure_ascii=False).strip('"')
