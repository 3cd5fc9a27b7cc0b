"""Resource profiles: what a replica may ask for and on which nodes it runs; pure.

On a cluster, the profiles are the chart's list, with one worker group each. On a local machine, every profile
means that machine. With them goes what the chart says of the sources of models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Protocol

import yaml
from pydantic import Field, ValidationError

from endpoint_operator.api.rules import MEMORY_RULE, Rule, at_most
from endpoint_operator.api.sources import ANY_SOURCE, SourceList, Sources
from endpoint_operator.api.types import CPU_PROFILE, ApiModel, ProfileName, Resources
from endpoint_operator.api.validation import describe

# The chart puts this label on the Ray nodes of each worker group. Ray's own label ray.io/node-group would not
# do: the autoscaler does not know it for a group without nodes, and would never start the first one (Ray
# 2.60).
PROFILE_LABEL: Final = "modelendpoint.dev/profile"

_UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40} | {
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}


class UnfitResourcesError(Exception):
    """A replica fits no worker: it asks for more than a worker has, or for a profile that does not exist."""


class ProfileNotFoundError(UnfitResourcesError):
    """A replica asks for a profile that does not exist."""


class InvalidProfilesError(Exception):
    """A profiles file cannot be used; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Placement:
    """What one replica reserves in Ray, and the labels that its node must have."""

    cpus: float
    accelerators: float
    memory_bytes: int
    node_labels: Mapping[str, str]


class Profiles(Protocol):
    """The resource profiles that replicas can run on, and where their models may come from."""

    @property
    def sources(self) -> Sources:
        """Where models may come from."""
        ...

    def place(self, resources: Resources) -> Placement:
        """Return what to reserve for one replica; raise UnfitResourcesError if it fits no worker."""
        ...

    @property
    def gateway_labels(self) -> Mapping[str, str]:
        """Labels that a node for the gateway must have."""
        ...

    @property
    def gateways(self) -> int:
        """How many replicas the gateway has."""
        ...


def memory_bytes(quantity: str) -> int:
    """Convert a Kubernetes quantity such as 2Gi to bytes."""
    for suffix, factor in _UNITS.items():
        if quantity.endswith(suffix):
            return int(quantity.removesuffix(suffix)) * factor
    return int(quantity)


class Toleration(ApiModel):
    """A Kubernetes toleration for the worker group's pods."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: int | None = None


class Profile(ApiModel):
    """One kind of worker: its size, and the nodes that its pods run on."""

    name: ProfileName
    accelerators: int = Field(default=0, ge=0, le=16, description="Accelerators of one worker.")
    cpus: float = Field(gt=0, le=1024, description="CPU cores of one worker.")
    memory: str = Field(max_length=16, description="Main memory of one worker.")
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    min_workers: int = Field(default=0, ge=0)
    max_workers: int = Field(default=1, ge=0)
    price: float | None = Field(default=None, ge=0, le=1_000_000, description="Of one worker, an hour.")

    RULES: ClassVar[tuple[Rule, ...]] = (
        MEMORY_RULE,
        at_most("minWorkers", "maxWorkers", "minWorkers must not be above maxWorkers"),
    )


class ProfileList(ApiModel):
    """The content of a profiles file: the chart's list, and its values about sources."""

    profiles: list[Profile] = Field(min_length=1)
    sources: SourceList = Field(default_factory=SourceList)


@dataclass(frozen=True)
class ClusterProfiles:
    """The profiles of a cluster, in the chart's order."""

    by_name: Mapping[str, Profile]
    sources: Sources = ANY_SOURCE

    def place(self, resources: Resources) -> Placement:
        """Return what to reserve on the profile's worker group; raise UnfitResourcesError."""
        profile = self.by_name.get(resources.profile)
        if profile is None:
            known = ", ".join(sorted(self.by_name))
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
        """The first profile without accelerators: the gateway alone must not keep an expensive node."""
        profile = self._gateway_profile
        return {PROFILE_LABEL: profile.name} if profile else {}

    @property
    def gateways(self) -> int:
        """Two where two workers are always there, or else one."""
        profile = self._gateway_profile
        return 2 if profile and profile.min_workers > 1 else 1

    @property
    def _gateway_profile(self) -> Profile | None:
        return next((profile for profile in self.by_name.values() if not profile.accelerators), None)


def parse_profiles(document: Any) -> ClusterProfiles:
    """Parse a decoded profiles file.

    Raises pydantic.ValidationError for a malformed file and ValueError for a name given twice.
    """
    content = ProfileList.model_validate(document)
    by_name = {profile.name: profile for profile in content.profiles}
    if len(by_name) < len(content.profiles):
        raise ValueError("profiles: each name may be used once")
    return ClusterProfiles(by_name, content.sources.as_sources())


def read_profiles(text: str, source: str) -> ClusterProfiles:
    """Parse the text of a profiles file; raise InvalidProfilesError, whose message begins with `source`."""
    try:
        return parse_profiles(yaml.safe_load(text))
    except ValidationError as error:
        problems = "; ".join(str(problem) for problem in describe(error, ProfileList))
        raise InvalidProfilesError(f"{source}: {problems}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidProfilesError(f"{source}: {error}") from error


@dataclass(frozen=True)
class LocalMachine:
    """The machine that the command runs on; every profile means it, without a node selector."""

    cpus: int
    memory_bytes: int
    accelerators: int

    def place(self, resources: Resources) -> Placement:
        """Return what to reserve here; without accelerators, the CPU is used for every profile."""
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
    def sources(self) -> Sources:
        """Everything: whoever runs the command may read what it reads."""
        return ANY_SOURCE

    @property
    def gateway_labels(self) -> Mapping[str, str]:
        """No labels, because there is only one node."""
        return {}

    @property
    def gateways(self) -> int:
        """One, for the same reason."""
        return 1
