import pytest

from endpoint_operator.local.state import EndpointState, State, read_state


def replicas(*states):
    return [{"replica_id": str(number), "state": state} for number, state in enumerate(states)]


def application(status, *replica_states, message="", deployment_message=""):
    """Return an application as Serve's REST interface reports it, cut to what matters."""
    return {
        "status": status,
        "message": message,
        "deployments": {
            "Model": {
                "status": "UPDATING",
                "message": deployment_message,
                "replicas": replicas(*replica_states),
            }
        },
    }


# Serve's status, the states of the replicas, what that is for people, whether waiting helps.
STATES = [
    ("NOT_STARTED", [], State.LOADING, False),
    ("DEPLOYING", [], State.LOADING, False),
    ("DEPLOYING", ["STARTING"], State.LOADING, False),
    ("DEPLOYING", ["RUNNING", "STARTING"], State.UPDATING, False),
    ("RUNNING", ["RUNNING"], State.READY, True),
    ("RUNNING", [], State.READY, True),
    ("DEPLOY_FAILED", [], State.FAILED, True),
    ("DEPLOY_FAILED", ["STOPPING"], State.FAILED, True),
    ("DEPLOY_FAILED", ["RUNNING"], State.DEGRADED, True),
    ("UNHEALTHY", [], State.LOADING, False),
    ("UNHEALTHY", ["RUNNING"], State.DEGRADED, True),
    ("DELETING", ["STOPPING"], State.LOADING, False),
]


@pytest.mark.parametrize(("status", "states", "expected", "settled"), STATES)
def test_each_status_of_serve_is_a_state_for_people(status, states, expected, settled):
    state = read_state("a", application(status, *states))
    assert (state.state, state.settled) == (expected, settled)


@pytest.mark.parametrize(
    ("states", "pid", "phase"),
    [
        ([], None, ""),
        (["STARTING"], None, "waiting for a place and a process"),
        (["STARTING"], 7, "a process fetches and loads the model"),
        (["RUNNING", "STARTING"], 7, "a process fetches and loads the model"),
        (["RUNNING"], 7, ""),
    ],
)
def test_a_replica_that_starts_is_waited_for_in_one_of_two_phases(states, pid, phase):
    starting = application("DEPLOYING", *states)
    for replica in starting["deployments"]["Model"]["replicas"]:
        replica["pid"] = pid
    assert read_state("a", starting).phase == phase


def test_a_start_that_takes_long_is_no_cause():
    slow = "Deployment 'Model' in application 'a' has 1 replicas that have taken more than 30s to initialize."
    state = read_state("a", application("DEPLOYING", "STARTING", deployment_message=slow))
    assert (state.cause, state.phase) == ("", "waiting for a place and a process")


def test_every_status_that_serve_knows_is_in_the_table():
    from ray.serve.schema import ApplicationStatus

    assert {status for status, *_ in STATES} == {status.value for status in ApplicationStatus}


def test_an_endpoint_that_serve_has_not_seen_yet_is_loading():
    assert read_state("a", None) == EndpointState("a", State.LOADING)


def test_an_application_whose_deployments_are_not_there_yet_is_loading():
    assert read_state("a", {"status": "DEPLOYING"}) == EndpointState("a", State.LOADING)


def test_only_running_replicas_count():
    state = read_state("a", application("DEPLOYING", "RUNNING", "STARTING", "STOPPING", "RUNNING"))
    assert state.ready_replicas == 2


def test_the_cause_comes_from_the_deployment_before_the_application():
    failed = application(
        "DEPLOY_FAILED",
        message="Failed to update the deployments ['Model'].",
        deployment_message="Traceback\nserve_app.sources.SourceError: file:///a: there is no folder /a",
    )
    assert read_state("a", failed).cause == "file:///a: there is no folder /a"


def test_the_application_tells_the_cause_if_no_deployment_does():
    failed = application("DEPLOY_FAILED", message="Deploying app 'a' failed.\nValueError: broken")
    assert read_state("a", failed).cause == "ValueError: broken"


def test_a_model_that_waits_for_a_place_says_so():
    waiting = application("DEPLOYING", "STARTING", deployment_message="Resources required: {'GPU': 1}")
    assert read_state("a", waiting).cause == "Resources required: {'GPU': 1}"


def test_a_replica_that_ray_finds_no_place_for_is_told_without_clusters():
    message = (
        "Deployment 'Model' in application 'a' has 1 replicas that have taken more than 30s to be scheduled. "
        "This may be due to waiting for the cluster to auto-scale. Use `ray status` for more details."
    )
    waiting = application("DEPLOYING", "STARTING", deployment_message=message)
    assert read_state("a", waiting).cause.startswith("no place is free on this machine; remove another")


def test_a_ready_endpoint_has_no_cause():
    healthy = application("RUNNING", "RUNNING", message="once", deployment_message="there was an error")
    assert read_state("a", healthy).cause == ""


@pytest.mark.parametrize("state", [State.SUSPENDED, State.REJECTED])
def test_nothing_is_waited_for_that_ray_was_never_given(state):
    assert EndpointState("a", state).settled
