"""What a client may ask for with all continuations of one request."""

from dataclasses import replace

import pytest

from serve_app.engine.generation import FinishReason, GenerationRequest, TooMuchError
from tests.harness.builders import run
from tests.unit.fake_generator import ONE_AT_A_TIME, PROMPT, generating, parts_of, request


def test_what_would_never_find_a_place_is_no_overload():
    async def scenario():
        async with generating(**ONE_AT_A_TIME, max_input_tokens=10) as (engine, _):
            with pytest.raises(TooMuchError, match="3 continuations, and a replica of this endpoint takes 2"):
                await engine.generate(replace(request(), together=3))
            two = replace(request(max_new_tokens=11), together=2)
            with pytest.raises(TooMuchError, match="2 continuations of up to 11 tokens are more than the 20"):
                await engine.generate(two)
            assert len(await parts_of(await engine.generate(replace(two, together=1)))) == 11

    run(scenario())


def test_log_probabilities_bound_how_long_a_continuation_may_be(monkeypatch):
    """Refused where the client says how long, and shorter where the endpoint does."""
    monkeypatch.setattr("serve_app.engine.generation.MAX_SCORES", 12)

    async def scenario():
        async with generating(parameters={"max_new_tokens": 6}) as (engine, _):
            both = {"top_logprobs": 1, "together": 2}
            with pytest.raises(TooMuchError, match="of up to 4 tokens with 2 log-probabilities each make 16"):
                await engine.generate(replace(request(max_new_tokens=4), **both))
            parts = await parts_of(await engine.generate(GenerationRequest(PROMPT, **both)))
            assert (len(parts), parts[-1].finish_reason) == (3, FinishReason.LENGTH)
            assert len(await parts_of(await engine.generate(GenerationRequest(PROMPT)))) == 6

    run(scenario())
