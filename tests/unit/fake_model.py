"""A TaskModel without weights: words are tokens, and the answer tells what was asked."""

import asyncio
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace

from serve_app.contract import ModelArgs, Task, UserConfig
from serve_app.engine.base import EncodedSequence, Output, Progress, TaskModel, TextPair
from serve_app.engine.batch_engine import BatchEngine
from serve_app.http.errors import InvalidInputError
from tests.harness.builders import until

ARGS = ModelArgs(name="sentiment", uri="file:///models/sentiment", task=Task.TEXT_CLASSIFICATION)

# A text with one of these words makes the model fail in that place.
UNREADABLE = "unreadable"
BROKEN = "broken"
UNSPEAKABLE = "unspeakable"
NOT_A_NUMBER = "nan"


class FakeModel(TaskModel):
    """Imitates a task: `label` is the first word, `score` the number of tokens.

    While `free` is cleared, forward passes hold still; `started` says that one has begun.
    """

    outputs = (
        Output("label", "BYTES", (-1,)),
        Output("score", "FP32", (-1,)),
        Output("vector", "FP32", (-1, -1)),
        Output("details", "BYTES", (-1,)),
    )
    warmup_text = "ready"
    max_tokens = 10
    description = {"dtype": "float32"}
    new_tokens = 0

    def __init__(self):
        self.free = threading.Event()
        self.free.set()
        self.started = threading.Event()
        self.batches = []

    def encode(self, text, parameters, limit):
        words = text.split()
        if UNREADABLE in words:
            raise InvalidInputError("the text cannot be read")
        limit.check(len(words))
        kept = words[: limit.max_tokens]
        features = {"input_ids": list(range(len(kept))), "words": kept}
        return [EncodedSequence(features, new_tokens=self.new_tokens)]

    def forward(self, batch, progress: Progress):
        self.batches.append([" ".join(encoded.features["words"]) for encoded in batch])
        self.started.set()
        assert self.free.wait(5)
        if any(BROKEN in encoded.features["words"] for encoded in batch):
            raise RuntimeError("no such index")
        return [encoded.length for encoded in batch]

    def decode(self, text, encoded, outputs, parameters):
        [words], [length] = [sequence.features["words"] for sequence in encoded], outputs
        if UNSPEAKABLE in words:
            raise RuntimeError("no such label")
        return {
            "label": words[0],
            "score": float("nan") if NOT_A_NUMBER in words else length / 2,
            "vector": [length, 0.5],
            "details": [{"words": words, "top_k": parameters.top_k}],
        }

    def hold(self):
        """Keep the next forward pass from ending."""
        self.started.clear()
        self.free.clear()


class FakeEmbedder(FakeModel):
    """Imitates feature-extraction: a vector of the number of tokens, and whether it should have length 1."""

    outputs = (Output("embedding", "FP32", (-1, -1)),)

    def decode(self, text, encoded, outputs, parameters):
        number = float("nan") if NOT_A_NUMBER in text else outputs[0]
        return {"embedding": [number, float(bool(parameters.normalize))]}


class FakeRanker(FakeModel):
    """Imitates text-ranking: the score is the number of words of the text; words count as tokens."""

    outputs = (Output("score", "FP32", (-1,)),)
    input_names = ("query", "text")
    inputs_required = 2
    warmup_text = TextPair("ready", "ready")

    def encode(self, text, parameters, limit):
        return super().encode(f"{text.first} {text.second}", parameters, limit)

    def decode(self, text, encoded, outputs, parameters):
        factor = -1 if parameters.function_to_apply == "none" else 1
        return {"score": factor * float(len(text.second.split()))}


def ranking_service(**user_config):
    """Return a fake model of text-ranking, and an engine around it."""
    model = FakeRanker()
    args = ModelArgs(name="ranker", uri="file:///models/ranker", task=Task.TEXT_RANKING)
    return SimpleNamespace(model=model, engine=BatchEngine(args, model, UserConfig(**user_config)))


def service(**user_config):
    """Return a fake model, and an engine around it with these settings."""
    model = FakeModel()
    return SimpleNamespace(model=model, engine=BatchEngine(ARGS, model, UserConfig(**user_config)))


def embedding_service(**user_config):
    """Return the same for feature-extraction."""
    model = FakeEmbedder()
    args = ModelArgs(name="minilm", uri="file:///models/minilm", task=Task.FEATURE_EXTRACTION)
    return SimpleNamespace(model=model, engine=BatchEngine(args, model, UserConfig(**user_config)))


@asynccontextmanager
async def serving(**user_config):
    """Yield an engine and its fake model."""
    fake = service(**user_config)
    try:
        yield fake.engine, fake.model
    finally:
        fake.model.free.set()
        await fake.engine.close()


async def fill(engine, model, count):
    """Return tasks of `count` requests that are inside the engine and cannot end."""
    model.hold()
    tasks = [asyncio.create_task(engine.predict([f"held{number}"])) for number in range(count)]
    await until(model.started.is_set)
    return tasks
