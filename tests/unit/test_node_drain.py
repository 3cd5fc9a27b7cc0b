"""How long a worker's pod waits before it ends. The head of Ray is a double; tests/e2e drains real nodes."""

import socket
import subprocess
from types import SimpleNamespace

import pytest
from ray.core.generated.gcs_pb2 import GcsNodeInfo

from serve_app import node_drain

ALIVE, DEAD = GcsNodeInfo.GcsNodeState.ALIVE, GcsNodeInfo.GcsNodeState.DEAD
NODE = bytes(range(28))


class Head:
    """Ray's head: it knows the node between two moments, and is away between two others.

    At the moment `forgets` it no longer knows what it was told.
    """

    def __init__(
        self, clock, node_comes=0, node_leaves=1e9, away=(0, 0), accepts=True, forgets=1e9, call_seconds=0
    ):
        self.clock, self.away, self.accepts, self.call_seconds = clock, away, accepts, call_seconds
        self.node_comes, self.node_leaves, self.forgets = node_comes, node_leaves, forgets
        self.told = []
        self.draining = {}

    def get_all_node_info(self, timeout):
        self._answer()
        self.clock.sleep(self.call_seconds)
        nodes = {b"other": SimpleNamespace(instance_id="another-pod", state=ALIVE)}
        if self.node_comes <= self.clock.now:
            state = ALIVE if self.clock.now < self.node_leaves else DEAD
            nodes[NODE] = SimpleNamespace(instance_id="this-pod", state=state)
        return nodes

    def get_draining_nodes(self, timeout):
        self._answer()
        return self.draining

    def drain_node(self, node, reason, message, deadline, timeout):
        self._answer()
        self.told.append((node, deadline))
        if self.accepts:
            self.draining[node] = deadline
        return self.accepts, "" if self.accepts else "it is the head"

    def _answer(self):
        if self.away[0] <= self.clock.now < self.away[1]:
            raise RuntimeError("unavailable")
        if self.clock.now >= self.forgets:
            self.draining, self.forgets = {}, 1e9


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    clock.time = lambda: 1000 + clock.now
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    monkeypatch.setattr(node_drain, "time", clock)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv("RAY_CLOUD_INSTANCE_ID", "this-pod")
    return clock


@pytest.fixture
def drained(clock, monkeypatch):
    """A function that drains under a head, and returns that head and how long it took."""

    def run(seconds, replicas_until=1e9, connections_until=0, no_address=(0, 0), **state):
        head = Head(clock, **state)
        monkeypatch.setattr(node_drain, "GcsClient", lambda address: head)
        monkeypatch.setattr(node_drain, "_knock", lambda head: None)
        monkeypatch.setattr(node_drain, "_has_replicas", lambda: clock.now < replicas_until)
        monkeypatch.setattr(node_drain, "_has_connections", lambda: clock.now < connections_until)
        monkeypatch.setattr(
            node_drain, "_has_address", lambda head: not no_address[0] <= clock.now < no_address[1]
        )
        node_drain.drain(seconds)
        return head, clock.now

    return run


def test_it_ends_when_ray_has_left_the_node(drained):
    head, took = drained(100, node_leaves=30)
    assert 30 <= took < 32
    assert head.told == [(NODE.hex(), 1_100_000)]


def test_it_ends_at_once_where_ray_has_left_before(drained):
    """As when the autoscaler has ended a node without work, and then its pod is deleted."""
    head, took = drained(100, node_leaves=0)
    assert took == 0
    assert head.told == []


def test_it_ends_at_the_deadline_if_ray_stays(drained):
    head, took = drained(100)
    assert 100 <= took < 102
    assert len(head.told) == 1


def test_it_waits_for_another_head_and_tells_that_one(drained):
    head, took = drained(100, away=(0, 40), node_leaves=60)
    assert 60 <= took < 62
    assert head.told[0] == (NODE.hex(), 1_100_000)


def test_a_head_that_does_not_know_the_node_yet_is_told_when_it_does(drained):
    head, took = drained(100, node_comes=20, node_leaves=60)
    assert 60 <= took < 62
    assert len(head.told) == 1


def test_a_head_that_has_forgotten_is_told_again(drained):
    head, took = drained(100, away=(10, 30), forgets=30, node_leaves=60)
    assert 60 <= took < 62
    assert [node for node, _ in head.told] == [NODE.hex()] * 2


def test_it_gives_up_where_ray_never_starts(drained):
    head, took = drained(300, node_comes=1e9)
    assert 90 <= took < 92
    assert head.told == []


def test_the_deadline_stays_what_it_is_when_a_call_takes_long(drained):
    head, _ = drained(100, call_seconds=30, node_leaves=60)
    assert head.told == [(NODE.hex(), 1_100_000)]


def test_it_gives_up_where_no_head_comes(drained, capsys):
    head, took = drained(300, away=(0, 1000))
    assert 90 <= took < 92
    assert head.told == []
    assert "Ray's head could not be asked to drain" in capsys.readouterr().err


@pytest.mark.parametrize(("connections_until", "ends"), [(0, 55), (20, 65), (200, 90)])
def test_where_no_pod_of_a_head_follows_it_waits_for_clients_only(drained, connections_until, ends):
    """As in a Ray cluster that is removed as a whole."""
    _, took = drained(300, away=(0, 1000), no_address=(10, 1000), connections_until=connections_until)
    assert ends <= took < ends + 3


def test_a_head_that_answers_needs_no_name_that_can_be_looked_up(drained):
    head, took = drained(300, no_address=(0, 1000), node_leaves=80)
    assert 80 <= took < 82


def test_a_head_whose_pod_is_there_is_waited_for_until_it_answers(drained):
    head, took = drained(300, away=(0, 80), no_address=(10, 50), node_leaves=85)
    assert 85 <= took < 87
    assert len(head.told) == 1


@pytest.mark.parametrize(
    ("error", "is_there"),
    [(socket.EAI_NONAME, False), (socket.EAI_NODATA, False), (socket.EAI_AGAIN, True), (None, True)],
)
def test_a_name_that_cannot_be_looked_up_may_have_an_address(monkeypatch, error, is_there):
    def look_up(host, port):
        assert host == "head.example"
        if error is not None:
            raise socket.gaierror(error, "")

    monkeypatch.setattr(node_drain.socket, "getaddrinfo", look_up)
    assert node_drain._has_address("head.example:6379") is is_there


@pytest.fixture
def nobody():
    """An address of this machine where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_a_knock_is_answered_or_fails_at_once(nobody):
    with socket.create_server(("127.0.0.1", 0)) as server:
        node_drain._knock(f"127.0.0.1:{server.getsockname()[1]}")
    with pytest.raises(ConnectionRefusedError):
        node_drain._knock(nobody)


def test_a_knock_goes_to_an_address_of_ipv6_too(monkeypatch):
    knocked = []

    def connect(address, timeout):
        knocked.append(address)
        return socket.socket()

    monkeypatch.setattr(node_drain.socket, "create_connection", connect)
    node_drain._knock("[fd00::1]:6379")
    assert knocked == [("fd00::1", 6379)]


def test_a_head_that_is_gone_is_not_asked_through_rays_client(clock, monkeypatch, nobody):
    """It would block for a minute each time."""
    asked = []
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    monkeypatch.setattr(node_drain, "GcsClient", lambda address: asked.append(address))
    monkeypatch.setattr(node_drain, "_has_connections", lambda: False)
    monkeypatch.setattr(node_drain, "_has_address", lambda head: False)
    node_drain.drain(300)
    assert asked == []
    assert 45 <= clock.now < 47


@pytest.mark.parametrize(("replicas_until", "ends"), [(1e9, 100), (10, 30)])
def test_a_refusal_is_said_and_requests_are_answered_for_as_long_as_there_are_replicas(
    drained, capsys, replicas_until, ends
):
    _, took = drained(100, accepts=False, replicas_until=replicas_until)
    assert ends <= took < ends + 3
    assert capsys.readouterr().err == "Ray does not drain this node: it is the head\n"


@pytest.mark.parametrize(
    ("replicas_until", "connections_until", "ends"), [(0, 0, 20), (50, 0, 70), (10, 60, 80)]
)
def test_it_ends_when_the_node_is_empty_for_a_while(drained, replicas_until, connections_until, ends):
    _, took = drained(300, replicas_until=replicas_until, connections_until=connections_until)
    assert ends <= took < ends + 3


def test_a_node_of_which_nobody_was_told_is_not_taken_for_empty(drained):
    _, took = drained(300, replicas_until=0, away=(0, 60))
    assert 80 <= took < 83


def test_a_replica_is_known_by_the_name_of_its_process(monkeypatch):
    # Other replicas may run on this machine.
    name = "ray::ServeReplicaOfThisTest:a:Model"
    monkeypatch.setattr(node_drain, "_REPLICA", name)
    assert not node_drain._has_replicas()
    with subprocess.Popen(["bash", "-c", f"exec -a {name} sleep 20"]) as process:
        try:
            while not node_drain._has_replicas():
                assert process.poll() is None
        finally:
            process.kill()


def test_a_connection_to_the_port_of_requests_is_seen(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(node_drain, "_SERVE_PORTS", {server.getsockname()[1]})
        assert not node_drain._has_connections()
        with socket.create_connection(server.getsockname()):
            assert node_drain._has_connections()
