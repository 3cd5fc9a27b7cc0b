"""What clients read of a model that does not answer: fixed sentences, whatever Ray says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.gateway.public_reason import NO_PLACE, NOT_LOADED, SLOW, UNHEALTHY, public_reason

SENTENCES = {"", NO_PLACE, NOT_LOADED, SLOW, UNHEALTHY}
STATUSES = ["NOT_STARTED", "DEPLOYING", "DEPLOY_FAILED", "RUNNING", "UNHEALTHY", "DELETING"]

# As Ray 2.60 words them.
RAISED = (
    "A replica failed to start with exception. Retrying 2 more time(s). Error:\n"
    "Traceback (most recent call last):\n"
    '  File "/opt/venv/serve_app/deployment.py", line 53, in __init__ (pid=9, ip=10.0.0.7, actor_id=ab)\n'
    "serve_app.loading.sources.errors.SourceError: {}"
)
UNSCHEDULED = (
    "Deployment 'Model' in application 'a' has 1 replicas that have taken more than 30s to be scheduled. "
    'Resources required for each replica: {"CPU": 9}, '
    "total resources available: {}. Use `ray status` for more details."
)
INITIALIZING = (
    "Deployment 'Model' in application 'a' has 1 replicas that have taken more than 30s to initialize.\n"
    "This may be caused by a slow __init__ or reconfigure method."
)
SICK = (
    "A replica's health check failed. This deployment will be UNHEALTHY until the replica recovers or a new "
    "deploy happens."
)


@pytest.mark.parametrize(
    ("status", "deployment", "application", "sentence"),
    [
        ("DEPLOYING", RAISED.format("file:///a: there is no folder /a"), "", NOT_LOADED),
        ("DEPLOY_FAILED", RAISED.format("/a: the weights are not readable"), "", NOT_LOADED),
        ("DEPLOY_FAILED", "", "Deploying app 'a' failed with exception:\nTraceback\nKeyError: 1", NOT_LOADED),
        ("DEPLOY_FAILED", "", "the worker on 10.0.0.7 died", NOT_LOADED),
        ("UNHEALTHY", "", "", ""),
        ("UNHEALTHY", SICK, "The deployments ['Model'] are UNHEALTHY.", UNHEALTHY),
        ("DEPLOYING", UNSCHEDULED, "", NO_PLACE),
        ("DEPLOYING", INITIALIZING, "", SLOW),
        ("DEPLOYING", "Upscaling from 0 to 1 replicas.", "", ""),
        ("DEPLOYING", "", "", ""),
    ],
)
def test_each_cause_has_a_sentence(status, deployment, application, sentence):
    assert public_reason(status, [deployment], application) == sentence


def test_what_is_there_cannot_be_told_from_what_is_not():
    causes = [
        "file:///a: there is no folder /a",
        "/a has no *.safetensors file",
        "/a/config.json is not JSON",
    ]
    assert {public_reason("DEPLOYING", [RAISED.format(cause)], "") for cause in causes} == {NOT_LOADED}


@given(st.sampled_from(STATUSES), st.lists(st.text() | st.builds(RAISED.format, st.text())), st.text())
def test_nothing_that_ray_says_is_quoted(status, deployments, application):
    assert public_reason(status, deployments, application) in SENTENCES
