"""What the load generator of streams makes of bytes and times."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.generation.events import EventParser, Received, Stream, read
from bench.generation.prompts import (
    CHAT,
    COMPLETIONS,
    LONG,
    SHORT,
    arrivals,
    first_starts,
    make_prompts,
    members,
)
from bench.generation.summary import summarize


def event(text=None, **members):
    choices = [] if text is None else [{"index": 0, "text": text, "finish_reason": None}]
    return json.dumps({"choices": choices, **members}).encode()


END = json.dumps({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}).encode()


def answer(*data, status=200):
    return read(Received(10.0, status, [(11.0 + number, each) for number, each in enumerate(data)]))


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@given(st.integers(0, 1000))
def test_a_body_in_any_pieces_has_the_same_events(line_end, seed):
    lines = [
        b": ping",
        b"",
        b"event: x",
        b'data: {"a": 1}',
        b"",
        b"data:two",
        b"data: lines",
        b"",
        b"data: [DONE]",
        b"",
        b"",
    ]
    body = line_end.join(lines)
    source = random.Random(seed)
    cuts = sorted(source.randint(0, len(body)) for _ in range(source.randint(0, 9)))
    parser = EventParser()
    found = [
        data
        for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)
        for data in parser.feed(body[start:end])
    ]
    assert found == [b'{"a": 1}', b"two\nlines", b"[DONE]"]


def test_tokens_are_those_of_the_usage():
    stream = answer(event(" a"), event(" b"), END, event(usage={"completion_tokens": 5}), b"[DONE]")
    assert stream == Stream(10.0, [11.0, 12.0], 5)


def test_without_usage_each_event_with_text_is_a_token():
    stream = answer(event(" a", usage=None), event(""), event(" b"), END)
    assert (stream.tokens, stream.times, stream.gaps) == (2, [11.0, 13.0], [2.0])


def test_chats_have_their_text_in_a_delta():
    chunks = [{"role": "assistant"}, {"content": "Yes"}, {"content": None}]
    data = [json.dumps({"choices": [{"delta": delta}]}).encode() for delta in chunks]
    assert answer(*data, END).times == [12.0]


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (answer(event(" a"), END, status=503), "status 503"),
        (answer(event(" a"), status=0), "broken off"),
        (answer(event(" a"), b'{"error": "out of memory"}'), "error: out of memory"),
        (answer(event(" a"), b"{"), "not JSON: b'{'"),
        (answer(event(" a")), "no finish_reason"),
        (answer(END), "no text"),
    ],
)
def test_what_is_no_whole_answer_has_failed(stream, problem):
    assert stream == Stream(10.0, problem=problem)


def test_a_summary_has_the_tokens_and_gaps_of_the_measured_time():
    streams = [
        # Half of its 8 tokens come in between, two with each event; it began before.
        Stream(9.0, [9.5, 9.9, 10.2, 10.6], 8),
        Stream(10.5, [10.7, 10.8, 10.8, 11.9], 4),
        # Its last event comes too late.
        Stream(11.0, [11.5, 12.5], 2),
    ]
    summary = summarize(streams, 10.0, 12.0)
    assert summary.tokens_per_s == pytest.approx((4 + 4 + 1) / 2)
    assert (summary.streams, summary.failures, summary.problem) == (2, 0, "")
    assert summary.first_p50_ms == pytest.approx(200)
    assert summary.first_p90_ms == pytest.approx(500)
    # Of 0, 0.1, 0.3, 0.4 and 1.1 seconds.
    assert summary.gap_p50_ms == pytest.approx(300)
    assert summary.gap_max_ms == pytest.approx(1100)
    assert summary.tokens_per_event == pytest.approx(14 / 10)


def test_failed_streams_count_as_failures_only():
    streams = [Stream(1.0, problem="status 503"), Stream(1.5, problem="status 503"), Stream(1.2, problem="x")]
    summary = summarize([*streams, Stream(2.0, [2.1], 1), Stream(9.0, problem="too late to count")], 0.0, 4.0)
    assert (summary.failures, summary.streams, summary.problem) == (3, 4, "status 503")
    assert summary.tokens_per_s == pytest.approx(1 / 4)
    assert math.isnan(summary.gap_p50_ms)


@pytest.mark.parametrize("lengths", [SHORT, LONG])
def test_prompts_have_their_lengths_and_are_all_different(lengths):
    prompts = make_prompts(lengths, 2000)
    words = sorted(len(prompt.split()) for prompt in prompts)
    assert (words[0], words[-1]) == lengths
    assert words[1000] == pytest.approx(math.sqrt(lengths[0] * lengths[1]), rel=0.1)
    assert len(set(prompts)) == 2000
    assert prompts[:10] == make_prompts(lengths, 10)


def test_a_request_asks_for_a_stream_of_so_many_tokens():
    asked = members(COMPLETIONS, "chat", "the room", 64, {"ignore_eos": None, "seed": 1})
    assert asked == {
        "model": "chat",
        "prompt": "the room",
        "max_tokens": 64,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "seed": 1,
    }
    assert members(CHAT, "chat", "hi", 1)["messages"] == [{"role": "user", "content": "hi"}]


def test_clients_do_not_begin_together():
    starts = first_starts(32, 2.0, seed=5)
    assert starts == first_starts(32, 2.0, seed=5)
    assert 0 <= min(starts) < 0.3
    assert 1.7 < max(starts) <= 2.0
    assert len(set(starts)) == 32


def test_requests_arrive_at_random_in_the_number_to_be_expected():
    times = list(arrivals(1.5, 4.0, 20.0, seed=5))
    assert times == sorted(times)
    assert sum(time < 4 for time in times) == 6
    assert sum(4 <= time < 24 for time in times) == 30
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    # In a row without a rhythm, gaps are spread as widely as they are long.
    assert min(gaps) < 0.1 < 1.5 < max(gaps)
