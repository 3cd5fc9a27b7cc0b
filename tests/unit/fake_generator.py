"""An engine on steps without a model, and what tests ask of it."""

from contextlib import asynccontextmanager

from serve_app.contract import ModelArgs, Task, UserConfig
from serve_app.engine.batch_engine import BatchEngine
from serve_app.engine.generation import GenerationRequest
from serve_app.http.errors import InvalidInputError
from tests.harness.builders import until
from tests.unit.fake_model import FakeModel
from tests.unit.fake_steps import FakeSteps, alone, continuation, text_of

ARGS = ModelArgs(name="chat", uri="file:///models/chat", task=Task.TEXT_GENERATION)
ONE_AT_A_TIME = {"max_ongoing_requests": 1, "max_queued_requests": 1}
PROMPT = [1, 2, 3]


class FakeGenerator(FakeModel):
    """Continues prompts of token ids; texts are one token for each word."""

    max_tokens = 1000

    def __init__(self):
        super().__init__()
        self.steps = FakeSteps()

    def encode(self, text, parameters, limit):
        return [continuation(range(len(text.split())), parameters.max_new_tokens)]

    def continuation(self, request, parameters, limit):
        if not request.prompt:
            raise InvalidInputError("the prompt has no tokens")
        limit.check(len(request.prompt))
        return continuation(request.prompt, parameters.max_new_tokens, stops=tuple(parameters.stop))

    def token_text(self, token):
        return text_of([token])

    def decode(self, text, encoded, outputs, parameters):
        return {"generated_text": text_of(outputs[0].tokens)}


@asynccontextmanager
async def generating(**user_config):
    """Yield an engine and the steps of its model; at the end, nothing is held."""
    model = FakeGenerator()
    engine = BatchEngine(ARGS, model, UserConfig(**user_config))
    try:
        yield engine, model.steps
        await until(lambda: not engine._batcher.busy)
        assert (engine._admission.requests, engine._admission.large_tokens) == (0, 0)
        assert model.steps.faults == []
    finally:
        model.steps.free.set()
        await engine.close()


def request(prompt=PROMPT, **parameters):
    return GenerationRequest(prompt, {"max_new_tokens": 6, **parameters})


def right(prompt=PROMPT, new_tokens=6, **options):
    return alone(continuation(prompt, new_tokens, **options))


async def parts_of(generation):
    return [part async for part in generation]
