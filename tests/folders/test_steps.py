"""Models that are computed in steps, through the engine: each token is the one that `generate` has alone.

Prompts of one token and of hundreds share batches, arrive one after the other, and begin alike.
"""

import asyncio
import random
from types import SimpleNamespace

import pytest
import torch
import transformers

from serve_app.contract import ModelArgs, Task, UserConfig
from serve_app.engine.batch_engine import BatchEngine
from serve_app.engine.generation import GenerationRequest
from serve_app.http.errors import InputTooLongError
from serve_app.tasks import task_class
from tests.folders import architectures, asking
from tests.serve import tiny_models

GENERATE = Task.TEXT_GENERATION
MAX_TOKENS = 320
NEW_TOKENS = 20
# A window is much shorter than the prompts.
WINDOW = 16
# The two likeliest tokens differ by more than rounding can change.
CLEAR = 3e-4

ROOM = dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), MAX_TOKENS)
# With the weights of the embedding, some random models say the last token again for ever.
UNTIED = {"tie_word_embeddings": False}
OPTIONS = {
    "llama": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen3": {"num_key_value_heads": 1},
    "mistral": {"sliding_window": WINDOW, "num_key_value_heads": 1},
    "mixtral": {"sliding_window": WINDOW},
    "gemma": {"num_key_value_heads": 1, **UNTIED},
    "gemma2": {
        **UNTIED,
        "sliding_window": WINDOW,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 5.0,
        "query_pre_attn_scalar": 4,
    },
    "gemma3_text": {"sliding_window": WINDOW, **UNTIED},
    "cohere": {},
    "cohere2": {"sliding_window": WINDOW, "sliding_window_pattern": 2},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neox": {},
    "opt": {},
    "phi": {},
    "phi3": {"sliding_window": WINDOW},
    "granite": {"attention_multiplier": 0.2, "logits_scaling": 0.5},
    "olmo2": {},
    "olmo3": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "starcoder2": {"sliding_window": WINDOW},
    "smollm3": {"no_rope_layers": [1, 0]},
    "modernbert-decoder": {"local_attention": 2 * WINDOW},
    "exaone4": {"sliding_window": WINDOW, "sliding_window_pattern": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}

# What is generated in whole batches instead, and why.
NO_POSITIONS = "does not take the positions of its tokens"
OTHER_CACHE = "does not keep keys and values of one size in every layer"
NO_WINDOWS = "its layers do not say in which windows they attend"
UNTOLD = "layers attend as they are told"
WHOLE = {
    "bloom": (UNTIED, NO_POSITIONS),
    "mamba": ({}, NO_POSITIONS),
    "mamba2": ({}, NO_POSITIONS),
    "mpt": ({}, NO_POSITIONS),
    "codegen": ({}, UNTOLD),
    "falcon": ({}, UNTOLD),
    "gpt_neo": ({}, UNTOLD),
    "gptj": ({}, UNTOLD),
    "xglm": (UNTIED, UNTOLD),
    "stablelm": ({}, "StableLmAttention has an attention that is not known here"),
    "jamba": ({}, OTHER_CACHE),
    "lfm2": ({}, OTHER_CACHE),
    "openai-gpt": (UNTIED, OTHER_CACHE),
    "recurrent_gemma": (UNTIED, OTHER_CACHE),
    # These would attend beyond their windows, and only to texts that are longer than those of the proof.
    "qwen2_moe": (
        {
            "use_sliding_window": True,
            "sliding_window": 200,
            "max_window_layers": 1,
            "num_experts": 4,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
        NO_WINDOWS,
    ),
    "phimoe": ({"sliding_window": 200, "num_local_experts": 2}, NO_WINDOWS),
    "llama4_text": (
        {"attention_chunk_size": 200, "num_local_experts": 2, "intermediate_size_mlp": 64},
        NO_WINDOWS,
    ),
}


def some_prompts():
    ids = random.Random(1).choices(range(5, architectures.VOCABULARY), k=600)
    whole = ids[:200]
    return [ids[200:201], ids[300:305], ids[400:460], whole, [*whole[:90], *ids[500:510]], [*whole, 7, 8]]


PROMPTS = some_prompts()


def made(name, seed, prompts, **options):
    """Return a tiny model and its answers, as token ids, to the prompts; None unless all are clear."""
    torch.manual_seed(seed)
    config = architectures.config_of(name, **ROOM, **options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    architectures.spread(model)
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = None
    answers = [answer(model, prompt) for prompt in prompts]
    if None in answers or len(set(map(tuple, answers))) < len(answers):
        return None
    return SimpleNamespace(model=model, prompts=prompts, answers=answers)


def answer(model, prompt, new_tokens=NEW_TOKENS):
    """Return what `generate` has alone, or None where another token is almost as likely."""
    with torch.inference_mode():
        generated = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    best = torch.cat(generated.logits).topk(2).values
    clear = bool(((best[:, 0] - best[:, 1]) > CLEAR * best[:, 0].abs().clamp(min=1)).all())
    tokens = generated.sequences[0, len(prompt) :].tolist()
    return tokens if clear and len(set(tokens)) > 3 else None


def clear_model(name, prompts=None, **options):
    """Return the first of some random models whose answers are no close calls, whatever rounds where."""
    found = (made(name, seed, prompts or PROMPTS, **options) for seed in range(60))
    return next(each for each in found if each is not None)


def served(clear, folder, dtype="float32"):
    clear.model.save_pretrained(folder)
    tokenizer = tiny_models.tokenizer()
    tokenizer.model_max_length = MAX_TOKENS
    tokenizer.save_pretrained(folder)
    return task_class(GENERATE)(folder, dtype)


async def tokens_of(engine, prompt, started=None, after=0):
    """Return the tokens that the engine generates; `started` is set when there are `after` of them."""
    generation = await engine.generate(GenerationRequest(prompt, {"max_new_tokens": NEW_TOKENS}))
    tokens = []
    async for part in generation:
        tokens += [token.id for token in part.tokens]
        if started is not None and len(tokens) >= after:
            started.set()
    return tokens


async def alone(engine, prompts):
    return [await tokens_of(engine, prompt) for prompt in prompts]


async def together(engine, prompts):
    return await asyncio.gather(*(tokens_of(engine, prompt) for prompt in prompts))


async def staggered(engine, prompts):
    """Let each begin while the ones before are at their third token, and prompts come in small pieces."""
    engine._batcher._pace.piece_tokens = lambda generating: 23
    tasks = []
    for prompt in prompts:
        started = asyncio.Event()
        tasks.append(asyncio.create_task(tokens_of(engine, prompt, started, after=3)))
        await started.wait()
    return await asyncio.gather(*tasks)


def asked(model, way, prompts, **settings):
    async def ask():
        args = ModelArgs(name="tiny", uri="file:///tiny", task=GENERATE)
        engine = BatchEngine(args, model, UserConfig(max_batch_size=16, **settings))
        try:
            return await way(engine, prompts)
        finally:
            await engine.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("name", OPTIONS)
def test_each_token_is_that_of_generate_alone(name, tmp_path):
    clear = clear_model(name, **OPTIONS[name])
    model = served(clear, tmp_path / "model")
    proof = model.description["proof"]
    assert (proof["step"], proof["because"]) == ("float32, transformers' layers in steps, mixed lengths", [])
    assert model.description["batching"] == "continuous"
    assert model._pretrained.steps._traced is not None
    prompts, answers = clear.prompts, clear.answers
    order = [3, 0, 5, 4, 2, 1]
    for way in (alone, together, staggered):
        assert asked(model, way, prompts) == answers, way.__name__
        shuffled = asked(model, way, [prompts[number] for number in order])
        assert shuffled == [answers[number] for number in order], way.__name__
        # One at a time.
        assert asked(model, way, prompts, max_batch_tokens=1) == answers, way.__name__
    # What one sequence has left in a place is not seen by the next one.
    assert asked(model, together, [*prompts, *prompts[::-1]]) == [*answers, *answers[::-1]]


@pytest.mark.parametrize("name", WHOLE)
def test_what_cannot_be_computed_in_steps_is_generated_in_whole_batches_and_says_why(name, tmp_path):
    options, reason = WHOLE[name]
    tokenizer = tiny_models.tokenizer()
    texts = [*asking.TEXTS, " ".join(tiny_models.WORDS.split() * 12)]
    clear = clear_model(name, [tokenizer(text)["input_ids"] for text in texts], **options)
    model = served(clear, tmp_path / "model")
    assert model.steps is None
    assert model.description["batching"] == "whole batches"
    assert any("in steps" in each and reason in each for each in model.description["proof"]["because"])
    got = asked(model, lambda engine, texts: engine.predict(texts, {"max_new_tokens": NEW_TOKENS}), texts)
    right = [tokenizer.decode(answer, skip_special_tokens=True) for answer in clear.answers]
    assert [each["generated_text"] for each in got] == right


def test_the_reasons_of_all_architectures_are_shown():
    assert set(WHOLE) >= architectures.WHOLE_BATCHES
    assert not set(OPTIONS) & architectures.WHOLE_BATCHES


@pytest.mark.parametrize("name", ["falcon_h1", "minimax"])
def test_layers_that_remember_besides_attention_are_not_computed_in_steps(name, tmp_path):
    model = task_class(GENERATE)(architectures.write(name, GENERATE, tmp_path / "model"), "float32")
    assert model.steps is None
    assert "in steps" in model.description["proof"]["because"][0]


def test_in_half_a_dtype_the_tokens_are_those_of_the_half_model(tmp_path):
    clear = clear_model("llama")
    model = served(clear, tmp_path / "model", "bfloat16")
    assert model.description["dtype"] == "bfloat16"
    assert model.description["batching"] == "continuous"
    # Close calls may go either way, so only the beginning is compared.
    for got, wanted in zip(asked(model, together, clear.prompts), clear.answers, strict=True):
        assert got[0] == wanted[0]


@pytest.mark.parametrize("places", [1, 2, 4])
def test_a_device_with_few_places_computes_in_steps_too(places, tmp_path, monkeypatch):
    monkeypatch.setattr("serve_app.decoders.steps.affordable_places", lambda *arguments: places)
    clear = clear_model("llama")
    model = served(clear, tmp_path / "model")
    assert model.description["batching"] == "continuous"
    assert model.steps.places == places
    assert asked(model, together, clear.prompts[:5]) == clear.answers[:5]


def short_proof(monkeypatch):
    monkeypatch.setattr("serve_app.loading.rehearsal._MOST_OPERATIONS", 0)
    monkeypatch.setattr("serve_app.loading.rehearsal._SHORTEST_LONG", 64)


def test_a_prompt_is_no_longer_than_a_place_holds(tmp_path, monkeypatch):
    """Models of 128k tokens have places of fewer. The texts of a proof are seldom longer."""
    short_proof(monkeypatch)
    monkeypatch.setattr("serve_app.decoders.steps.MOST_TOKENS", 100)
    clear = clear_model("llama")
    model = served(clear, tmp_path / "model")
    assert model.max_tokens == 100
    text = " ".join(["goal"] * 150)
    with pytest.raises(InputTooLongError, match="this endpoint takes 80"):
        asked(model, lambda engine, texts: engine.predict(texts, {"max_new_tokens": 20}), [text])
    assert asked(model, together, clear.prompts[:3]) == clear.answers[:3]


def test_no_sequence_is_so_long_that_its_positions_are_rotated_otherwise(tmp_path, monkeypatch):
    """LongRoPE has other frequencies from a length on, for all sequences of a step."""
    short_proof(monkeypatch)
    rope = {
        "rope_type": "longrope",
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
        "rope_theta": 10_000.0,
        "original_max_position_embeddings": 128,
    }
    clear = clear_model("phi3", rope_parameters=rope, original_max_position_embeddings=128)
    model = served(clear, tmp_path / "model")
    assert model.description["batching"] == "continuous"
    assert model.max_tokens == 128
    assert asked(model, together, clear.prompts[:3]) == clear.answers[:3]
