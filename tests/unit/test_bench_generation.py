"""The load generator on a server of events, and what rows of generation amount to."""

import asyncio
from dataclasses import fields

import pytest

from bench.generation.claims import check
from bench.generation.load import Load, Report, row_of, run
from bench.generation.rows import GenerationRow, of_ours

EVENT = b'data: {"choices": [{"text": " a"}]}\n\n'
LAST = b'data: {"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 4}}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PAUSE = 0.02


def row(server="ours", dtype="bfloat16", streams=16, tokens_per_s=100.0, gap=10.0, **more):
    return GenerationRow(server, dtype, streams, tokens_per_s, gap, **more)


def verdicts(*rows):
    return {claim.promise: claim.holds for claim in check(rows)}


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


async def four_tokens(reader, writer):
    """Answer as a server that sends a token every 20 ms."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
    writer.write(HEAD)
    for data in [EVENT] * 4:
        writer.write(chunk(data))
        await asyncio.sleep(PAUSE)
    writer.write(chunk(LAST) + chunk(b""))
    writer.close()


async def one_token(reader, writer):
    """Break off after a token."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HEAD + chunk(EVENT))
    await writer.drain()
    writer.close()


async def silence(reader, writer):
    """Take the request and say nothing."""
    await reader.read()
    writer.close()


def loaded(answer, **load):
    async def measured():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            plain = {"warm_up_seconds": 0.2, "seconds": 0.6}
            return await run(Load(f"http://127.0.0.1:{port}/v1/completions", **plain, **load), [b"{}"])

    return asyncio.run(measured())


def test_clients_ask_again_and_again():
    report = loaded(four_tokens, streams=3)
    assert (report.failures, report.tokens_per_event) == (0, 1.0)
    # Each stream takes 80 ms and has 4 tokens, so each client gets 50 tokens a second and less.
    assert 30 < report.tokens_per_s < 160
    assert 3 <= report.streams <= 24
    assert report.gap_p50_ms >= 1000 * PAUSE - 1
    assert report.first_p50_ms < report.gap_p50_ms * 4


def test_requests_at_random_times_do_not_wait_for_each_other():
    report = loaded(four_tokens, rate=50.0)
    assert (report.streams, report.failures) == (30, 0)


def test_a_stream_that_breaks_off_has_failed():
    report = loaded(one_token, streams=1)
    assert report.failures == report.streams > 0
    assert report.problem == "broken off"


def test_a_stream_that_takes_too_long_has_failed():
    report = loaded(silence, rate=10.0, patience_seconds=0.1)
    assert (report.failures, report.streams, report.problem) == (6, 6, "broken off")


def test_without_a_server_all_fails():
    load = Load("http://127.0.0.1:9/v1/completions", streams=2, warm_up_seconds=0.1, seconds=0.3)
    report = asyncio.run(run(load, [b"{}"]))
    assert report.failures == report.streams > 0


def test_a_row_takes_all_that_the_load_generator_reports():
    numbers = {field.name: number for number, field in enumerate(fields(Report))}
    made = row_of("ours", "int8", Load("", streams=8), Report(**numbers))
    assert (made.streams, made.begun, made.load) == (8, numbers["streams"], "8 streams")
    assert row_of("ours", "int8", Load("", rate=1.5), Report(**numbers)).load == "1.50 requests/s"


def test_the_fastest_format_of_ours():
    rows = [row(), row(dtype="int8", tokens_per_s=150.0), row(streams=8, tokens_per_s=900.0)]
    rows += [row(streams=16, rate=1.0, tokens_per_s=999.0), row("openvino", tokens_per_s=999.0)]
    assert of_ours(rows, 16) == rows[1]
    assert of_ours(rows, 16, "bfloat16") == rows[0]
    assert of_ours(rows, 32) is None


@pytest.mark.parametrize(("theirs", "holds"), [(99.0, True), (101.0, False)])
def test_peers_with_the_same_weights_are_compared_by_rate(theirs, holds):
    peer = row("transformers", tokens_per_s=theirs, variant="continuous batching")
    promise = "bfloat16, 16 streams: tokens/s above those of transformers (continuous batching)"
    assert verdicts(row(), peer)[promise] is holds
    assert verdicts(row(dtype="float32"), peer)[promise] is None


@pytest.mark.parametrize(("theirs", "holds"), [(9.6, True), (9.4, False)])
def test_a_lone_stream_is_compared_by_the_time_between_tokens(theirs, holds):
    rows = [row(streams=1), row("llama.cpp", streams=1, gap=theirs)]
    assert (
        verdicts(*rows)["bfloat16, 1 stream: time between tokens no longer than that of llama.cpp"] is holds
    )


def test_each_is_compared_in_its_fastest_format():
    rows = [row(), row(dtype="int8", tokens_per_s=300.0)]
    rows += [row("openvino", tokens_per_s=80.0), row("openvino", "int4", tokens_per_s=200.0)]
    rows += [row("llama.cpp", "int4", tokens_per_s=301.0)]
    (openvino, llamacpp) = [claim for claim in check(rows) if "fastest" in claim.promise]
    assert (openvino.measured, openvino.holds) == ("1.50 x (int8 and int4)", True)
    assert llamacpp.holds is False


def test_no_request_at_a_random_time_may_fail():
    promise = "bfloat16, 1.50 requests/s at random times: no failures"
    assert verdicts(row(streams=0, rate=1.5, begun=15))[promise] is True
    assert verdicts(row(streams=0, rate=1.5, begun=15, failures=1))[promise] is False


def test_what_generated_nothing_is_compared_with_nothing():
    assert check([row(), row("openvino", tokens_per_s=0.0), row("in-process", tokens_per_s=900.0)]) == []
