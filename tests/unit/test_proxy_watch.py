import pytest

from serve_app.gateway.proxy_watch import ProxyWatch
from serve_app.http.errors import PROXY_HEADER
from tests.harness.builders import run

RULES = [(PROXY_HEADER.encode(), b"?1")]


def messages_of(caplog, *headers):
    """Return what is logged of requests with these headers, one after another."""
    passed = []

    async def app(scope, receive, send):
        passed.append(scope)

    async def scenario():
        watch = ProxyWatch(app)
        for each in headers:
            await watch({"type": "http", "headers": each}, None, None)

    run(scenario())
    assert len(passed) == len(headers)
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def expected(monkeypatch):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/opt/bin/model-endpoints-haproxy")


@pytest.mark.usefixtures("expected")
def test_a_proxy_with_our_rules_is_nothing_to_tell(caplog):
    assert messages_of(caplog, RULES, RULES) == []


@pytest.mark.usefixtures("expected")
def test_a_proxy_without_them_is_told_once(caplog):
    [message] = messages_of(caplog, RULES, [], [(b"host", b"a")])
    assert "HAProxy runs without the rules of model-endpoints-haproxy" in message


@pytest.mark.parametrize("command", ["", "/usr/sbin/haproxy"])
def test_where_another_program_is_asked_for_nothing_is_missing(caplog, monkeypatch, command):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", command)
    assert messages_of(caplog, []) == []
