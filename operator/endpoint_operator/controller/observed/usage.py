"""What models have used, as the gateway says it, and what a worker of each profile is and costs; pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from endpoint_operator.api.profiles import PROFILE_LABEL, Profile, memory_bytes
from endpoint_operator.serveconfig.schema import Application
from serve_app.contract import UsageReport


@dataclass(frozen=True)
class Rate:
    """What one replica takes of a worker, from 0 to 1, and the price of a worker an hour, if it has one.

    `share` is the largest part that it takes of anything, because the worker can give no more of that.
    """

    share: float
    memory_share: float
    price: float | None


@dataclass(frozen=True)
class UsageView:
    """The gateway's newest report, and the profiles by name."""

    report: UsageReport
    profiles: Mapping[str, Profile]


def rate_of(entry: str, profiles: Mapping[str, Profile]) -> Rate | None:
    """Return the rate of a replica of `entry`; None if the entry or its profile is not known."""
    try:
        [deployment] = Application.model_validate_json(entry).deployments
    except ValueError:
        return None
    asked = deployment.ray_actor_options
    profile = profiles.get(asked.label_selector.get(PROFILE_LABEL, ""))
    if profile is None:
        return None
    memory = asked.memory / memory_bytes(profile.memory)
    accelerators = asked.num_gpus / profile.accelerators if profile.accelerators else 0.0
    # A profile that was made smaller may have less than a replica took of it.
    share = min(1.0, max(asked.num_cpus / profile.cpus, memory, accelerators))
    return Rate(share, min(1.0, memory), profile.price)
