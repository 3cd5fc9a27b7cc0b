"""The rollout of a version, as a state machine whose state is stored in the endpoint's status; pure.

    New -> Settling -> Proven
     ^        |          |
     |        +> Failing <+
     |             |
     +-- BackingOff        (until the next attempt)
     +-- Quarantined       (until bisect.py lets it try again)

A version that has run is never given up: Ray does not start a failed deployment again by itself, so the
operator takes the version out of the Serve config and puts it back. One that has never run is tried again
too, with longer and longer pauses.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from endpoint_operator.api.status import (
    STEPPED_ASIDE,
    GoodVersion,
    ModelEndpointStatus,
    Reason,
    Rollout,
    RolloutPhase,
)
from endpoint_operator.controller.decide.stopwatch import Stopwatch
from endpoint_operator.controller.observed.messages import failure_cause
from endpoint_operator.controller.observed.rayservice import ApplicationReport
from endpoint_operator.controller.settings import Deadlines
from endpoint_operator.serveconfig.document import fingerprint

# A condition has room for it and for when the next attempt is.
LONGEST_MESSAGE: Final = 900

# As many versions that have run are kept.
GOOD_VERSIONS: Final = 2

# A version that has run most likely meets a passing fault, such as a hub that is down while Ray's head
# restarts. So its first pauses do not grow.
_EASY_RETRIES: Final = 8

# Phases of a version that Ray has been seen to have.
_WITH_RAY: Final = frozenset({RolloutPhase.SETTLING, RolloutPhase.PROVEN, RolloutPhase.FAILING})


@dataclass(frozen=True)
class Version:
    """What a spec describes: an entry of the Serve config, and the generation of the spec."""

    entry: str
    generation: int


@dataclass(frozen=True)
class Sighting:
    """What is seen of a version and of the RayService."""

    # It is in the live Serve config.
    live: bool = False
    # Ray has it, and `report` speaks of it.
    deployed: bool = False
    report: ApplicationReport | None = None
    # It has run before.
    proven: bool = False
    # The active cluster serves it, and `report` is of the pending one, which cannot disprove it.
    protected: bool = False
    upgrading: bool = False
    # Why everybody else waits for this version, if it has not run for too long.
    in_the_way: Reason | None = None
    # Why the good version that is in the Serve config in its place is no good to anybody any more.
    stand_in_problem: Reason | None = None
    # The RayService has a cluster that answers.
    service_up: bool = True


@dataclass(frozen=True)
class Clock:
    """The time, the deadlines, and the timers that say when the next decision is due."""

    now: datetime
    deadlines: Deadlines
    watch: Stopwatch


def advance(stored: Rollout | None, version: Version, seen: Sighting, clock: Clock) -> Rollout:
    """Return the next state of the rollout of `version`."""
    rollout = _of(stored, version)
    if rollout.phase is RolloutPhase.QUARANTINED:
        return rollout
    if rollout.phase is RolloutPhase.BACKING_OFF:
        return _wait(rollout, seen, clock)
    if not seen.live:
        return _absent(rollout, seen, clock)
    if not seen.deployed or seen.report is None:
        return rollout
    if seen.report.status == "DEPLOY_FAILED" and not seen.protected:
        return _fail(rollout, seen, seen.report, clock)
    if seen.in_the_way is not None:
        return _step_aside(rollout, seen.in_the_way, clock)
    return _follow(rollout, seen, seen.report)


def was_with_ray(stored: Rollout | None, entry: str) -> bool:
    """Whether Ray has been seen to have the version of `entry`, according to the stored state."""
    return stored is not None and stored.phase in _WITH_RAY and stored.fingerprint == fingerprint(entry)


def reject(rollout: Rollout, clock: Clock) -> Rollout:
    """Return the state of a version because of which Ray rejects a whole Serve config."""
    failed = rollout.model_copy(update={"last_failure_time": to_time(clock.now)})
    message = "Ray does not take a Serve config with this version."
    return _back_off(failed, Reason.REJECTED_BY_RAY, message, clock, proven=False)


def with_good_version(status: ModelEndpointStatus, version: Version) -> ModelEndpointStatus:
    """Return `status` with `version` as the last good one, if its rollout says that this one is proven."""
    rollout, last = status.rollout, status.last_good
    if rollout is None or rollout.phase is not RolloutPhase.PROVEN:
        return status
    if rollout.fingerprint != fingerprint(version.entry):
        return status
    if last is not None and last.application == version.entry:
        return status
    good = GoodVersion(generation=version.generation, application=version.entry)
    return status.model_copy(update={"last_good": good, "previous_good": last})


def to_time(moment: datetime) -> str:
    """Return `moment` as Kubernetes writes it, in whole seconds of UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_time(text: str) -> datetime:
    """Parse what `to_time` returned; an edited text that is no time counts as long ago."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _of(stored: Rollout | None, version: Version) -> Rollout:
    """Return the stored state if it is that of `version`, or else the first one.

    A version that is left out is tried at once after any change of its spec, be it a suspension in between.
    """
    new = Rollout(fingerprint=fingerprint(version.entry), generation=version.generation)
    if stored is None or stored.fingerprint != new.fingerprint:
        return new
    if stored.generation == version.generation:
        return stored
    if stored.phase in _WITH_RAY:
        return stored.model_copy(update={"generation": version.generation})
    return new


def _absent(rollout: Rollout, seen: Sighting, clock: Clock) -> Rollout:
    """Return the state of a version that is not in the live Serve config, although it is not left out."""
    problem = seen.stand_in_problem
    if problem is None:
        # Whatever brings it back has to be accepted by Ray again.
        return rollout.model_copy(update={"phase": RolloutPhase.NEW})
    if problem in STEPPED_ASIDE:
        return _step_aside(rollout, problem, clock)
    message = "The version that is kept in its place has failed."
    waiting = _back_off(rollout, problem, message, clock, proven=True)
    return waiting.model_copy(update={"failed_fallbacks": GOOD_VERSIONS})


def _follow(rollout: Rollout, seen: Sighting, report: ApplicationReport) -> Rollout:
    runs = report.status == "RUNNING" and (report.replicas is None or report.replicas.ready > 0)
    # What runs on a pending cluster has not answered anybody yet.
    if runs and not seen.upgrading:
        return Rollout(
            fingerprint=rollout.fingerprint, generation=rollout.generation, phase=RolloutPhase.PROVEN
        )
    phase = RolloutPhase.PROVEN if rollout.phase is RolloutPhase.PROVEN else RolloutPhase.SETTLING
    return rollout.model_copy(update={"phase": phase, "rejections": 0})


def _fail(rollout: Rollout, seen: Sighting, report: ApplicationReport, clock: Clock) -> Rollout:
    if rollout.phase is not RolloutPhase.FAILING:
        rollout = rollout.model_copy(
            update={
                "phase": RolloutPhase.FAILING,
                "rejections": 0,
                "last_failure_time": to_time(clock.now),
            }
        )
    if report.replicas is not None and seen.proven and report.replicas.ready:
        # It answers, so there is something to lose.
        return rollout
    # The deadline is for a version that may still answer, or that nobody has seen fail before.
    is_lost = rollout.attempts > 0 or (seen.proven and report.replicas is not None)
    patience = 0.0 if is_lost else clock.deadlines.failed_seconds
    left = patience - (clock.now - from_time(rollout.last_failure_time)).total_seconds()
    if left > patience:
        # The clock was put back, or the status was edited.
        return rollout.model_copy(update={"last_failure_time": to_time(clock.now)})
    if left > 0:
        clock.watch.wake_after(left)
        return rollout
    return _back_off(rollout, Reason.DEPLOY_FAILED, failure_cause(report), clock, proven=seen.proven)


def _back_off(rollout: Rollout, reason: Reason, message: str, clock: Clock, *, proven: bool) -> Rollout:
    attempts = rollout.attempts + 1
    pause = _pause(attempts, clock.deadlines, proven=proven)
    clock.watch.wake_after(pause)
    return rollout.model_copy(
        update={
            "phase": RolloutPhase.BACKING_OFF,
            "attempts": attempts,
            "rejections": 0,
            "failed_fallbacks": 0,
            "next_attempt_time": to_time(clock.now + timedelta(seconds=pause)),
            "reason": reason,
            "message": message[:LONGEST_MESSAGE],
        }
    )


def _pause(attempts: int, deadlines: Deadlines, *, proven: bool) -> float:
    """Return the seconds to the next attempt after `attempts` that failed."""
    growing = max(0, attempts - _EASY_RETRIES) if proven else attempts - 1
    # The exponent is limited, because a float is.
    return float(min(deadlines.retry_seconds * 2.0 ** min(growing, 60), deadlines.retry_limit_seconds))


def _step_aside(rollout: Rollout, reason: Reason, clock: Clock) -> Rollout:
    return rollout.model_copy(
        update={
            "phase": RolloutPhase.BACKING_OFF,
            "failed_fallbacks": 0,
            "next_attempt_time": to_time(clock.now),
            "reason": reason,
            "message": "",
        }
    )


def _wait(rollout: Rollout, seen: Sighting, clock: Clock) -> Rollout:
    if rollout.reason in STEPPED_ASIDE:
        is_due = seen.service_up and not seen.upgrading
    else:
        left = (from_time(rollout.next_attempt_time) - clock.now).total_seconds()
        if left > clock.deadlines.retry_limit_seconds:
            # The clock was put back, or the status was edited.
            again = to_time(clock.now + timedelta(seconds=clock.deadlines.retry_limit_seconds))
            rollout = rollout.model_copy(update={"next_attempt_time": again})
        # During an upgrade another attempt would only hold up the new cluster.
        is_due = left <= 0 and not seen.upgrading
        if left > 0:
            clock.watch.wake_after(left)
    if is_due:
        update = {"phase": RolloutPhase.NEW, "failed_fallbacks": 0, "next_attempt_time": ""}
        return rollout.model_copy(update=update)
    if seen.stand_in_problem is not None:
        return rollout.model_copy(update={"failed_fallbacks": rollout.failed_fallbacks + 1})
    return rollout
