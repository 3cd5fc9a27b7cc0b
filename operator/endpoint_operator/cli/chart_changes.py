"""What an upgrade of the chart changes about the RayService: two specs in, a list of changes out; pure.

KubeRay compares a hash of `rayClusterConfig`, from which it leaves out some fields
(`GenerateHashWithoutReplicasAndWorkersToDelete` in ray-operator/controllers/ray/utils/util.go, 1.6.2).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

# What lists of objects are told apart by, so that a change names a container and not a number.
_NAMES: Final = ("name", "groupName", "mountPath", "containerPort")
# Fields that KubeRay leaves out of its hash, and so does not carry over to a Ray cluster that exists.
_IGNORED: Final = re.compile(
    r"rayClusterConfig\.((headGroupSpec|workerGroupSpecs\[[^]]*\])\.template\.spec\.(tolerations|schedulingGates)"
    r"|workerGroupSpecs\[[^]]*\]\.((min|max)?[rR]eplicas|scaleStrategy\.workersToDelete)|upgradeStrategy)\b"
)
_GROUP: Final = re.compile(r"rayClusterConfig\.workerGroupSpecs\[([^]]*)\]")
# What the API server adds to a RayService: the defaults of KubeRay's definition.
_ADDED: Final = re.compile(r"(serveService\.status\..*|.*\.ports\[[^]]*\]\.protocol)$")
_MISSING: Final = object()
_LONGEST_VALUE: Final = 60


class Effect(StrEnum):
    """What a change does to the Ray cluster that serves."""

    REPLACED = "KubeRay starts a second Ray cluster and moves over"
    ADDED = "the running Ray cluster gets a worker group"
    LATER = "nothing until the Ray cluster is replaced"
    SERVICE = "the Service changes when the Ray cluster is replaced"
    AT_ONCE = "at once, and models go on"


@dataclass(frozen=True)
class ChartChange:
    """A field of the RayService's spec with its old and new value, None for one that is not there."""

    path: str
    old: Any
    new: Any
    effect: Effect

    def __str__(self) -> str:
        return f"{self.path}: {_word(self.old)} → {_word(self.new)}"

    def to_json(self) -> dict[str, Any]:
        return {"field": self.path, "from": self.old, "to": self.new, "effect": str(self.effect)}


def chart_changes(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[ChartChange, ...]:
    """Return what differs between two specs of a RayService, sorted by path.

    The Serve config is left out, because it is the operator's.
    """
    old, new = dict(_leaves(live)), dict(_leaves(wanted))
    paths = sorted(old.keys() | new.keys())
    paths = [path for path in paths if path != "serveConfigV2" and (path in new or not _ADDED.match(path))]
    appended = _appended_groups(live, wanted)
    return tuple(
        ChartChange(path, old.get(path), new.get(path), _effect(path, appended))
        for path in paths
        if old.get(path, _MISSING) != new.get(path, _MISSING)
    )


def _effect(path: str, appended: frozenset[str]) -> Effect:
    if path.startswith("serveService."):
        return Effect.SERVICE
    if not path.startswith("rayClusterConfig."):
        return Effect.AT_ONCE
    group = _GROUP.match(path)
    if group is not None and group[1] in appended:
        return Effect.ADDED
    return Effect.LATER if _IGNORED.match(path) else Effect.REPLACED


def _appended_groups(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> frozenset[str]:
    """Return the worker groups that are added at the end; none if the groups before them are others."""
    old, new = ([group["groupName"] for group in _groups(spec)] for spec in (live, wanted))
    return frozenset(new[len(old) :]) if new[: len(old)] == old else frozenset()


def _groups(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(spec.get("rayClusterConfig", {}).get("workerGroupSpecs", []))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values that are neither a map nor a list of maps, with their paths."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        for number, each in enumerate(value):
            yield from _leaves(each, f"{path}[{_name(each, number)}]")
    else:
        yield path, value


def _word(value: Any) -> str:
    """Return `value` as one short line; "not set" for None."""
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_VALUE else f"{line[: _LONGEST_VALUE - 1]}…"


def _name(item: Mapping[str, Any], number: int) -> str:
    return next((str(item[key]) for key in _NAMES if key in item), str(number))
