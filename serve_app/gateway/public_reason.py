"""Why a model does not answer, in words for clients; pure.

What Ray says of a failure names folders, hosts, processes and what is in files. That is for the author of
the endpoint, whose status has it. Whoever sends requests gets one of a few sentences, which quote nothing.
Nor do these tell a folder that is not there from one that cannot be read.
"""

from collections.abc import Iterable
from typing import Final

from serve_app.text import application_cause

NOT_LOADED: Final = "the model could not be loaded; the endpoint's status says why"
NO_PLACE: Final = "no place is free for a replica yet"
SLOW: Final = "a replica is loading the model, which takes long"
UNHEALTHY: Final = "a replica failed its health check and is replaced"

# What Serve says of a deployment (Ray 2.60, ray/serve/_private/deployment_state.py), and what that means.
_SENTENCES: Final = (
    ("to be scheduled", NO_PLACE),
    ("to initialize", SLOW),
    ("A replica's health check failed", UNHEALTHY),
)
_FAILED: Final = ("DEPLOY_FAILED", "UNHEALTHY")
# In front of what a replica raised; an application that cannot be built has a traceback only.
_RAISED: Final = ("Error:\n", "Traceback")


def public_reason(status: str, deployment_messages: Iterable[str], application_message: str) -> str:
    """Return the reason from an application's status and what Serve says of it; empty if there is none."""
    messages = [*deployment_messages, application_message]
    cause = application_cause(messages[:-1], application_message)
    for said, sentence in _SENTENCES:
        if said in cause:
            return sentence
    raised = any(mark in message for mark in _RAISED for message in messages)
    return NOT_LOADED if raised or (cause and status in _FAILED) else ""
