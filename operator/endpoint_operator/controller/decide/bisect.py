"""Find the version because of which Ray rejects a whole Serve config, as git bisect finds a commit; pure.

Ray does not say which application of a rejected Serve config is at fault, and KubeRay stops reporting. So
every version of it that Ray has never had is quarantined, until KubeRay reports again. Then half of those
that were rejected together are tried, and half of the rest, and so on. A single version is at fault if Ray
says that it rejected the Serve config, or if the same happens again while it alone is tried.

The state is in the rollouts: those tried are New, those that wait are Quarantined, and `rejections` counts
the rejected Serve configs that a version was in.
"""

from collections.abc import Collection, Mapping, Sequence

from endpoint_operator.api.status import Rollout, RolloutPhase
from endpoint_operator.controller.decide.rollout import Clock, reject


def on_rejected(
    rollouts: Mapping[str, Rollout], live: Collection[str], certain: bool, clock: Clock
) -> dict[str, Rollout]:
    """Return the rollouts that change because the live Serve config was not accepted, by endpoint.

    `live` names the endpoints whose version is in it. `certain` means that Ray has rejected it, and not only
    that KubeRay does not go on.
    """
    new = [name for name in live if rollouts[name].phase is RolloutPhase.NEW]
    if len(new) == 1 and (certain or rollouts[new[0]].rejections):
        return {new[0]: reject(rollouts[new[0]], clock)}
    return {name: _quarantined(rollouts[name]) for name in new}


def on_accepted(
    rollouts: Mapping[str, Rollout], order: Sequence[str], live: Collection[str]
) -> dict[str, Rollout]:
    """Return the rollouts to try next because the live Serve config was accepted, by endpoint."""
    waiting = [name for name in order if rollouts[name].phase is RolloutPhase.QUARANTINED]
    tried = [name for name in live if rollouts[name].phase is RolloutPhase.NEW and rollouts[name].rejections]
    if not waiting or tried:
        return {}
    # Those of the smallest group that was rejected are the most likely to be at fault.
    most = max(rollouts[name].rejections for name in waiting)
    group = [name for name in waiting if rollouts[name].rejections == most]
    probed = group[: (len(group) + 1) // 2] if len(group) > 1 else group
    return {name: rollouts[name].model_copy(update={"phase": RolloutPhase.NEW}) for name in probed}


def _quarantined(rollout: Rollout) -> Rollout:
    update = {"phase": RolloutPhase.QUARANTINED, "rejections": rollout.rejections + 1}
    return rollout.model_copy(update=update)
