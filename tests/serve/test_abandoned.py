"""Generations for which nobody waits any more."""

import asyncio
import time

from serve_app.contract import ModelArgs, Task, UserConfig
from serve_app.engine.base import InputLimit, Progress
from serve_app.engine.batch_engine import BatchEngine
from serve_app.parameters import parse_parameters
from serve_app.tasks import task_class
from tests.folders import asking
from tests.serve import tiny_models


def test_an_abandoned_generation_stops_at_the_next_token(tmp_path):
    """In steps, its place is free then; a whole batch ends when nobody waits for any of it."""

    async def abandon() -> int:
        folder = tiny_models.write(Task.TEXT_GENERATION, tmp_path)
        args = ModelArgs(name="tiny", uri=f"file://{folder}", task=Task.TEXT_GENERATION)
        model = task_class(Task.TEXT_GENERATION)(folder, "float32")
        begun, steps, step = asyncio.Event(), [], model.steps.step
        loop = asyncio.get_running_loop()

        def counted(rows):
            steps.append(len(rows))
            loop.call_soon_threadsafe(begun.set)
            time.sleep(0.02)
            return step(rows)

        model.steps.step = counted
        engine = BatchEngine(args, model, UserConfig())
        try:
            asked = asyncio.create_task(engine.predict(["the goal"], {"max_new_tokens": 40}))
            await begun.wait()
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await asyncio.sleep(0.2)
            return len(steps)
        finally:
            await engine.close()

    assert asyncio.run(abandon()) <= 2


def test_an_abandoned_batch_stops_at_the_next_token(tmp_path):
    folder = tiny_models.write(Task.TEXT2TEXT_GENERATION, tmp_path)
    model = task_class(Task.TEXT2TEXT_GENERATION)(folder, "auto")
    parameters = parse_parameters(Task.TEXT2TEXT_GENERATION, {"max_new_tokens": 40})
    encoded = model.encode("the goal", parameters, InputLimit(60, truncate=False))
    assert len(model.forward(encoded, asking.Waiting((), 0))[0]) > 2
    # No output is waited for, so everybody has gone: the first token of a decoder, and one that is generated.
    assert len(model.forward(encoded, Progress((), 0))[0]) == 2
