"""Whose turn it is."""

import asyncio
from types import SimpleNamespace

import pytest

from serve_app.engine.waiting import WaitingRequest, WaitingRequests
from tests.harness.builders import run


def request(*tokens, caller=""):
    sequences = [SimpleNamespace(tokens=each, group=None) for each in tokens]
    made = WaitingRequest(sequences, asyncio.get_running_loop().create_future())
    made.caller = caller
    return made


def waiting(*requests):
    queue = WaitingRequests()
    for each in requests:
        queue.append(each)
    return queue


def shown(queue, requests, most=100, most_tokens=100, **options):
    names = dict(zip(map(id, requests), "abc", strict=False))
    return [f"{names[id(e.request)]}{e.number}" for e in queue.next(most, most_tokens, **options)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "a0 b0 c0 a1 b1 a2"),
        ({"most": 4}, "a0 b0 c0 a1"),
        # The first request has had its share with the second sequence.
        ({"most_tokens": 2}, "a0 b0 c0 a1 b1"),
        ({"up_to": 2}, "b0 c0 b1"),
    ],
)
def test_one_sequence_of_each_request_in_turn(options, expected):
    async def scenario():
        requests = [request(1, 1, 1), request(1, 1), request(1)]
        return shown(waiting(*requests), requests, **options)

    assert run(scenario()) == expected.split()


def test_keys_take_turns_before_their_requests_do():
    """And a batch has as many of each as of the one that waits with the fewest."""

    async def scenario():
        requests = [request(1, 1, caller="noisy"), request(1, caller="noisy"), request(1, 1, caller="quiet")]
        return shown(waiting(*requests), requests)

    assert run(scenario()) == ["a0", "c0", "b0", "c1"]


def test_a_key_that_has_had_no_turn_is_next_however_late_it_comes():
    async def scenario():
        noisy = [request(1, caller="noisy") for _ in range(9)]
        queue = waiting(*noisy)
        served = []
        for _ in range(3):
            queue.append(request(1, caller="quiet"))
            entries = queue.next(1, 100)
            served.append(entries[0].request.caller)
            queue.take(entries)
            entries = queue.next(1, 100)
            served.append(entries[0].request.caller)
            queue.take(entries)
        return served

    # Both have a turn again and again, although one of them always waits with more.
    assert run(scenario()) == ["noisy", "quiet"] * 3


def test_what_is_too_large_for_its_key_leaves_the_turn_to_the_next_one():
    async def scenario():
        requests = [request(5, 5, caller="noisy"), request(1, caller="noisy"), request(1, 1, caller="quiet")]
        return shown(waiting(*requests), requests, most_tokens=5)

    assert run(scenario()) == ["a0", "c0", "b0", "c1"]


def test_whoever_was_served_comes_after_the_others_and_keeps_its_order():
    async def scenario():
        requests = [request(1, 1, 1), request(1)]
        queue = waiting(*requests)
        second = queue.next(9, 100)[2]
        queue.take([second])
        return len(queue), shown(queue, requests)

    assert run(scenario()) == (3, ["b0", "a0", "a2"])


def test_requests_of_one_owner_take_their_turns_as_one():
    async def scenario():
        requests = [request(1) for _ in range(4)]
        for own in requests[:3]:
            own.owner = "a client with three"
        queue = waiting(*requests)
        order = []
        while len(queue):
            [entry] = queue.next(1, 1)
            order.append(requests.index(entry.request))
            queue.take([entry])
        return order

    assert run(scenario()) == [0, 3, 1, 2]


def test_a_request_that_is_in_a_batch_with_all_its_sequences_waits_no_more():
    async def scenario():
        whole, part, gone = requests = [request(1), request(1, 1), request(1)]
        queue = waiting(*requests)
        queue.take(queue.next(2, 100))
        gone.answer.cancel()
        assert len(queue) == 1
        queue.drop_all()
        whole.set_output(0, "answer")
        return await whole.answer, part.answer.cancelled()

    assert run(scenario()) == (["answer"], True)


def test_the_first_failure_ends_a_request_and_later_outputs_change_nothing():
    async def scenario():
        failed = request(1, 1)
        failed.fail(ValueError("first"))
        failed.fail(ValueError("second"))
        failed.set_output(0, "late")
        failed.set_output(1, "late")
        assert failed.is_over
        with pytest.raises(ValueError, match="first"):
            await failed.answer

    run(scenario())
