"""The sample that chats, in steps: sixteen clients at once get what `generate` has for each alone."""

import asyncio

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from serve_app.contract import ModelArgs, Task, UserConfig
from serve_app.engine.batch_engine import BatchEngine
from serve_app.engine.generation import Chat, FinishReason, GenerationRequest
from serve_app.tasks import task_class
from tests.serve.service import MODELS

FOLDER = MODELS / "smollm2"
NEW_TOKENS = 40
# Of the two likeliest tokens. What is closer, may be the other one on another machine.
CLOSE = 1e-3

ABOUT = "The history of {} begins"
TEXTS = [
    *(ABOUT.format(each) for each in ("bread", "the printing press", "glass", "Lisbon", "chess")),
    "Water",
    "def fibonacci(n):\n    ",
    "1, 2, 3, 4,",
    "Once upon a time, in a village by the sea, there lived a girl who could talk to the wind. One morning,",
    "The three primary colours are",
    "Dear Sir or Madam,\n\nI am writing to",
    "Q: Why is the sky blue?\nA:",
    "Ingredients: two eggs, 200 g of flour,",
    "In the year 1969,",
    "La capitale de la France est",
    "To be, or not to be: " * 30,
]


@pytest.fixture(scope="module")
def prompts():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    return [tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.fixture(scope="module")
def reference():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


def require_greedy(reference, prompts, answers):
    """Check that each token is the likeliest one after those before it, up to the first close call.

    That is what `generate` does, which would take a pass for each token.
    """
    checked = 0
    for prompt, tokens in zip(prompts, answers, strict=True):
        assert len(tokens) == NEW_TOKENS
        with torch.inference_mode():
            logits = reference(torch.tensor([[*prompt, *tokens[:-1]]])).logits[0, len(prompt) - 1 :]
        best = logits.topk(2).values
        close = (best[:, 0] - best[:, 1] < CLOSE).nonzero().flatten().tolist()
        clear = close[0] if close else NEW_TOKENS
        assert tokens[:clear] == logits.argmax(-1).tolist()[:clear]
        checked += clear
    assert checked > 0.9 * NEW_TOKENS * len(prompts)


@pytest.fixture(scope="module")
def model():
    return task_class(Task.TEXT_GENERATION)(FOLDER, "float32")


def asked(model, ask, **settings):
    async def scenario():
        args = ModelArgs(name="smollm2", uri=f"file://{FOLDER}", task=Task.TEXT_GENERATION)
        engine = BatchEngine(args, model, UserConfig(max_batch_size=16, max_batch_tokens=8192, **settings))
        try:
            return await ask(engine)
        finally:
            await engine.close()

    return asyncio.run(scenario())


async def tokens_of(engine, prompt, begun=None):
    parameters = {"max_new_tokens": NEW_TOKENS, "ignore_eos": True}
    tokens = []
    async for part in await engine.generate(GenerationRequest(prompt, parameters)):
        tokens += [token.id for token in part.tokens]
        if begun is not None and len(tokens) > 3:
            begun.set()
    return tokens


def test_it_is_computed_in_steps(model):
    proof = model.description["proof"]
    assert (proof["step"], proof["because"]) == ("float32, transformers' layers in steps, mixed lengths", [])
    assert model._pretrained.steps._traced is not None


def test_sixteen_at_once(model, reference, prompts):
    async def ask(engine):
        return await asyncio.gather(*(tokens_of(engine, prompt) for prompt in prompts))

    answers = asked(model, ask)
    require_greedy(reference, prompts, answers)
    for prompt, tokens in list(zip(prompts, answers, strict=True))[:3]:
        ids = torch.tensor([prompt])
        made = reference.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
        assert made[0, len(prompt) :].tolist() == tokens


def test_sixteen_one_after_the_other(model, reference, prompts):
    async def ask(engine):
        tasks = []
        for prompt in prompts:
            begun = asyncio.Event()
            tasks.append(asyncio.create_task(tokens_of(engine, prompt, begun)))
            await begun.wait()
        return await asyncio.gather(*tasks)

    require_greedy(reference, prompts, asked(model, ask))


def test_a_second_question_goes_on_from_the_first_answer(model):
    """The template begins both prompts alike, so that only what is new is computed."""
    question = {"role": "user", "content": "What is the capital of France?"}

    async def told(engine, messages):
        generation = await engine.generate(GenerationRequest(Chat(messages)))
        parts = [part async for part in generation]
        return "".join(part.text for part in parts), parts[-1].finish_reason, generation

    async def ask(engine):
        text, reason, first = await told(engine, [question])
        assert (text, reason) == ("The capital of France is Paris.", FinishReason.END_TOKEN)
        said = [
            question,
            {"role": "assistant", "content": text},
            {"role": "user", "content": "And of Italy?"},
        ]
        again, _, second = await told(engine, said)
        assert "Rome" in again
        assert second.cached_tokens >= first.prompt_tokens + first.generated_tokens - 1

    asked(model, ask)
