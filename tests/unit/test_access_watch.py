"""When Ray's pods are told that keys have changed."""

import asyncio

import pytest

from endpoint_operator.controller.access_watch import ANNOTATION, AccessWatch
from endpoint_operator.kube.errors import KubeError


class FakePods:
    """Imitates the requests about pods; `versions` are those of the Secret and the ConfigMap."""

    def __init__(self):
        self.versions = {("secrets", "keys"): "1", ("configmaps", "settings"): "2"}
        self.annotated = []
        self.fails = False

    async def version_of(self, plural, name):
        if self.fails:
            raise KubeError("no answer")
        return self.versions.get((plural, name), "")

    async def names(self, selector):
        assert selector == "a=b"
        return ["head", "worker"]

    async def annotate(self, name, annotation, value):
        self.annotated.append((name, annotation, value))


@pytest.fixture
def pods():
    return FakePods()


def watch(pods):
    return AccessWatch(pods, "keys", "settings", "a=b")


def test_pods_are_told_once_of_each_version(pods):
    async def scenario():
        watching = watch(pods)
        for _ in range(3):
            await watching.look()
        pods.versions["secrets", "keys"] = "3"
        for _ in range(3):
            await watching.look()

    asyncio.run(scenario())
    assert pods.annotated == [
        (pod, ANNOTATION, value) for value in ("1.2", "3.2") for pod in ("head", "worker")
    ]


def test_a_secret_that_is_not_there_yet_is_followed_too(pods):
    async def scenario():
        watching = watch(pods)
        del pods.versions["secrets", "keys"]
        await watching.look()
        pods.versions["secrets", "keys"] = "9"
        await watching.look()

    asyncio.run(scenario())
    assert [value for pod, _, value in pods.annotated if pod == "head"] == ["none.2", "9.2"]


def test_what_nobody_expects_does_not_end_it(pods, caplog, monkeypatch):
    monkeypatch.setattr("endpoint_operator.controller.access_watch.LOOK_SECONDS", 0)
    good = pods.version_of

    async def broken(plural, name):
        raise TypeError("no object")

    async def scenario():
        pods.version_of = broken
        running = asyncio.create_task(watch(pods).run())
        for _ in range(5):
            await asyncio.sleep(0)
        pods.version_of = good
        async with asyncio.timeout(5):
            while not pods.annotated:
                await asyncio.sleep(0)
        running.cancel()

    asyncio.run(scenario())
    assert "no object" in caplog.text


def test_what_fails_is_said_once_and_tried_again(pods, caplog, monkeypatch):
    monkeypatch.setattr("endpoint_operator.controller.access_watch.LOOK_SECONDS", 0)

    async def scenario():
        pods.fails = True
        running = asyncio.create_task(watch(pods).run())
        for _ in range(50):
            await asyncio.sleep(0)
        pods.fails = False
        async with asyncio.timeout(5):
            while not pods.annotated:
                await asyncio.sleep(0)
        running.cancel()

    asyncio.run(scenario())
    assert caplog.text.count("a minute later: no answer") == 1
