"""Resource profiles: what one replica may ask for and where it lands; pure.

On a cluster, the catalogue is the chart's list of profiles, one worker group each. On one's own
machine there is a single place to run, and every profile means that place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Protocol

from pydantic import Field

from endpoint_operator.api.rules import MEMORY_RULE, Rule, at_most
from endpoint_operator.api.types import CPU_PROFILE, ApiModel, ProfileName, Resources

# The chart puts this label on the Ray nodes of each worker group. Ray's own, ray.io/node-group, would not do:
# the autoscaler does not know it of a group without nodes, and would never start the first one (Ray 2.60).
PROFILE_LABEL: Final = "modelendpoint.dev/profile"

_UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40} | {
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}


class UnfitResourcesError(Exception):
    """Resources that no worker of the asked profile can give."""


class ProfileNotFoundError(UnfitResourcesError):
    """Resources of a profile that does not exist."""


@dataclass(frozen=True)
class Placement:
    """What Ray is asked for: cores, accelerators, bytes, and the labels of the node."""

    cpus: float
    accelerators: float
    memory_bytes: int
    node_labels: Mapping[str, str]


class Catalogue(Protocol):
    """Where replicas can run."""

    def place(self, resources: Resources) -> Placement:
        """Return what to ask Ray for; raise UnfitResourcesError with a sentence if nothing fits."""
        ...

    @property
    def gateway_labels(self) -> Mapping[str, str]:
        """Labels of the nodes for the gateway."""
        ...


def memory_bytes(quantity: str) -> int:
    """Return the bytes of a Kubernetes quantity such as 2Gi."""
    for suffix, factor in _UNITS.items():
        if quantity.endswith(suffix):
            return int(quantity.removesuffix(suffix)) * factor
    return int(quantity)


class Toleration(ApiModel):
    """A Kubernetes toleration, handed through to the worker group's pods."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: int | None = None


class Profile(ApiModel):
    """One kind of worker: its size, and the nodes that its pods go to."""

    name: ProfileName
    accelerators: int = Field(default=0, ge=0, le=16, description="Accelerators of one worker.")
    cpus: float = Field(gt=0, le=1024, description="CPU cores of one worker.")
    memory: str = Field(max_length=16, description="Main memory of one worker.")
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    min_workers: int = Field(default=0, ge=0)
    max_workers: int = Field(default=1, ge=0)

    RULES: ClassVar[tuple[Rule, ...]] = (
        MEMORY_RULE,
        at_most("minWorkers", "maxWorkers", "minWorkers must not be above maxWorkers"),
    )


class ProfileList(ApiModel):
    """The catalogue's file: the chart's list of profiles."""

    profiles: list[Profile] = Field(min_length=1)


@dataclass(frozen=True)
class ClusterCatalogue:
    """The profiles of a cluster, by name."""

    profiles: Mapping[str, Profile]

    def place(self, resources: Resources) -> Placement:
        """Return what to ask Ray for on the profile's worker group."""
        profile = self.profiles.get(resources.profile)
        if profile is None:
            known = ", ".join(sorted(self.profiles))
            raise ProfileNotFoundError(
                f"resources.profile: no profile is named {resources.profile!r}; there are {known}"
            )
        workers = f"a worker of profile {profile.name!r} has"
        if resources.count > max(1, profile.accelerators):
            raise UnfitResourcesError(
                f"resources.count: asks for {resources.count:g} accelerators, "
                f"and {workers} {profile.accelerators}"
            )
        if resources.cpus > profile.cpus:
            raise UnfitResourcesError(
                f"resources.cpus: asks for {resources.cpus:g} cores, and {workers} {profile.cpus:g}"
            )
        memory = memory_bytes(resources.memory)
        if memory > memory_bytes(profile.memory):
            raise UnfitResourcesError(
                f"resources.memory: asks for {resources.memory}, and {workers} {profile.memory}"
            )
        accelerators = resources.count if profile.accelerators else 0.0
        return Placement(resources.cpus, accelerators, memory, {PROFILE_LABEL: profile.name})

    @property
    def gateway_labels(self) -> Mapping[str, str]:
        """The first profile without accelerators: a costly node must not be kept for the gateway alone."""
        plain = [name for name, profile in self.profiles.items() if not profile.accelerators]
        return {PROFILE_LABEL: plain[0]} if plain else {}


def parse_catalogue(document: Any) -> ClusterCatalogue:
    """Return the catalogue of a decoded profiles file.

    Raises pydantic.ValidationError for a malformed file and ValueError for a name given twice.
    """
    listed = ProfileList.model_validate(document).profiles
    by_name = {profile.name: profile for profile in listed}
    if len(by_name) < len(listed):
        raise ValueError("profiles: each name may be used once")
    return ClusterCatalogue(by_name)


@dataclass(frozen=True)
class Machine:
    """The catalogue of one's own machine: every profile runs here, without a selector."""

    cpus: int
    memory_bytes: int
    accelerators: int

    def place(self, resources: Resources) -> Placement:
        """Return what to ask Ray for here; a machine without accelerators uses its processor."""
        memory = memory_bytes(resources.memory)
        if memory > self.memory_bytes:
            raise UnfitResourcesError(
                f"resources.memory: asks for {resources.memory}, and this machine has "
                f"{self.memory_bytes / 2**30:.1f}Gi free"
            )
        if resources.cpus > self.cpus:
            raise UnfitResourcesError(
                f"resources.cpus: asks for {resources.cpus:g}, and this machine has {self.cpus} cores"
            )
        wanted = 0.0 if resources.profile == CPU_PROFILE else resources.count
        accelerators = min(wanted, float(self.accelerators))
        return Placement(resources.cpus, accelerators, memory, {})

    @property
    def gateway_labels(self) -> Mapping[str, str]:
        """None: there is one node."""
        return {}
