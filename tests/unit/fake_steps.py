"""Steps without a model: the next token follows from all tokens before, and each place is watched.

A step fails if a row goes on from tokens that are not in its place, as a cache of keys and values would go on
with others silently.
"""

import asyncio
import random
import threading
import zlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serve_app.engine.batch_planner import BatchLimits
from serve_app.engine.continuous.batcher import ContinuousBatcher
from serve_app.engine.continuous.choice import Choice, Sampling
from serve_app.engine.continuous.continuation import Continuation, Continued
from serve_app.engine.generation import FinishReason
from serve_app.engine.streams import Streams
from tests.harness.builders import until

VOCABULARY = 20
# A row with this token makes the model fail.
BAD = 666


def next_token(ids, draw=0.0):
    return (zlib.crc32(repr(list(ids)).encode()) + int(draw * 1000)) % VOCABULARY


def text_of(ids):
    """Return letters; tokens of prompts have some too."""
    return "".join(chr(ord("a") + token % VOCABULARY) for token in ids)


def continuation(prompt, new_tokens=5, **options):
    if "seed" in options:
        options["sampling"] = Sampling(samples=True)
    return Continuation(
        features={"input_ids": list(prompt)}, new_tokens=new_tokens, decode=text_of, **options
    )


def alone(of):
    """Return what becomes of a continuation that nobody shares the model with."""
    ids, draws = list(of.prompt), random.Random(of.seed)
    while True:
        ids.append(next_token(ids, draws.random() if of.sampling.samples else 0.0))
        new = ids[len(of.prompt) :]
        text = text_of(new)
        stopped = [text.index(stop) for stop in of.stops if stop in text]
        whole = text[: min(stopped, default=len(text))] if of.stops else None
        if stopped or ids[-1] in of.ends:
            return Continued(new, whole, FinishReason.STOP if stopped else FinishReason.END_TOKEN)
        if len(new) == of.new_tokens:
            return Continued(new, whole, FinishReason.LENGTH)


@dataclass
class FakeSteps:
    """While `free` is cleared, steps hold still; `started` says that one has begun."""

    places: int = 64
    capacity: int = 1000
    steps: list = field(default_factory=list)
    copied: list = field(default_factory=list)
    # Of each place: the tokens that it may go on from, and how many it has memory for.
    tokens: dict = field(default_factory=dict)
    memory: dict = field(default_factory=dict)
    free: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    computing: threading.Lock = field(default_factory=threading.Lock)
    # What a step that fails with BAD raises, and whether that is only in company.
    error: Exception = field(default_factory=lambda: RuntimeError("no such index"))
    before: object = None
    # What went wrong; an exception alone would be taken for the model's.
    faults: list = field(default_factory=list)

    def __post_init__(self):
        self.free.set()

    def step(self, rows):
        self.require(self.computing.acquire(blocking=False), "two steps at once")
        try:
            self.started.set()
            assert self.free.wait(5)
            self.steps.append([(row.place, row.begin, len(row.tokens), row.chooses) for row in rows])
            if self.before:
                self.before(rows)
            self.require(rows, "an empty step")
            self.require(len({row.place for row in rows}) == len(rows), "two rows in a place")
            return [self._choice(row) for row in rows]
        finally:
            self.computing.release()

    def _choice(self, row):
        if BAD in row.tokens:
            raise self.error
        known, end = self.tokens.get(row.place, []), row.begin + len(row.tokens)
        whole = [*known[: row.begin], *row.tokens]
        self.require(0 <= row.place < self.places, f"place {row.place}")
        self.require(len(row.tokens) > 0, "a row without tokens")
        self.require(end <= self.capacity, f"{end} tokens in a place")
        self.require(row.begin <= len(known), f"{row.begin} of {len(known)} tokens are known")
        self.require(whole == list(row.so_far[:end]), "another sequence is in the place")
        self.require(row.chooses == (end == len(row.so_far)), "a token is chosen before its time")
        self.tokens[row.place] = whole
        self.memory[row.place] = max(end, self.memory.get(row.place, 0))
        return Choice(next_token(whole, row.draw)) if row.chooses else None

    def copy(self, source, target, tokens):
        self.require(not self.computing.locked(), "a copy beside a step")
        self.require(tokens <= len(self.tokens.get(source, [])), "a copy of what is not known")
        self.copied.append((source, target, tokens))
        self.tokens[target] = self.tokens[source][:tokens]
        self.memory[target] = max(tokens, self.memory.get(target, 0))

    def release(self, place, known=0):
        self.require(not self.computing.locked(), "a release beside a step")
        self.tokens[place] = self.tokens.get(place, [])[:known]
        self.memory[place] = min(self.memory.get(place, 0), known)

    def require(self, condition, fault):
        if not condition:
            self.faults.append(fault)
            raise AssertionError(fault)

    @property
    def computed(self):
        """How many tokens all steps have computed."""
        return sum(count for step in self.steps for _, _, count, _ in step)

    def hold(self):
        """Keep the next step from ending."""
        self.started.clear()
        self.free.clear()


def limits(max_size=8, max_tokens=10_000):
    return BatchLimits(max_size, max_tokens, max_wait_seconds=0)


@asynccontextmanager
async def batching(max_size=8, max_tokens=10_000, **options):
    """Yield a batcher and its model, which has to be right about each place at the end."""
    steps = FakeSteps(**options)
    batcher = ContinuousBatcher(steps, limits(max_size, max_tokens), Streams())
    try:
        yield batcher, steps
    finally:
        steps.free.set()
        await batcher.close()
        assert steps.faults == []


async def held(batcher, steps, *requests):
    """Return the tasks of requests of which a step holds still."""
    steps.hold()
    tasks = [asyncio.create_task(batcher.submit(each)) for each in requests]
    await until(steps.started.is_set)
    return tasks


async def free_after(steps, seconds=0.05):
    await asyncio.sleep(seconds)
    steps.free.set()


async def told(request):
    """Return what a streamed request is handed, to its end."""
    grown = []
    while not grown or grown[-1].reason is None:
        grown.append(await request.growth.get())
        if isinstance(grown[-1], Exception):
            raise grown[-1]
    return grown
