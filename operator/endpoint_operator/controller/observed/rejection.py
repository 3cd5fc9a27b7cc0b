"""Read from KubeRay's events whether Ray has rejected a Serve config; pure.

From KubeRay 1.7 on the events may say nothing: its event recorder merges notes, and keeps the first one. A
rejection then shows only in that KubeRay does not go on although Ray's dashboard answers.
"""

from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

# The part of a note that means that Ray answered 400 (KubeRay, rayservice_controller.go).
_BAD_REQUEST: Final = "UpdateDeployments fail: 400"
# pydantic's words. Ray also answers 400 when it cannot store a Serve config, which says nothing against it
# (ray/dashboard/modules/serve/serve_head.py).
_AGAINST_SCHEMA: Final = "validation error"


class Rejection(Enum):
    """What KubeRay's events say of the Serve config that Ray was given last."""

    NONE = auto()
    """Nothing against it."""
    UNEXPLAINED = auto()
    """Ray did not take it."""
    INVALID = auto()
    """Ray found it invalid."""


def rejection_in(notes: Iterable[str]) -> Rejection:
    """Return what the notes of failed updates say."""
    bad = [note for note in notes if _BAD_REQUEST in note]
    if any(_AGAINST_SCHEMA in note for note in bad):
        return Rejection.INVALID
    return Rejection.UNEXPLAINED if bad else Rejection.NONE
