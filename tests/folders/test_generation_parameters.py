"""What a request may ask of a model in steps, and what a model in whole batches refuses."""

import json

import pytest

from serve_app.contract import Task
from serve_app.decoders.steps import DecoderSteps
from serve_app.engine.base import InputLimit
from serve_app.engine.generation import Chat, GenerationRequest
from serve_app.http.errors import InputTooLongError, InvalidInputError
from serve_app.parameters import parse_parameters
from serve_app.tasks import task_class
from tests.folders import architectures, asking
from tests.serve import tiny_models

GENERATE = Task.TEXT_GENERATION
ROOMY = InputLimit(64, truncate=False)


def written(name, folder, **stated):
    """Write a folder whose generation_config.json states this besides."""
    architectures.write(name, GENERATE, folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **stated}), encoding="utf-8")
    return folder


def load(name, folder, **stated):
    return task_class(GENERATE)(written(name, folder, **stated), "float32")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return load("llama", tmp_path_factory.mktemp("llama") / "model", eos_token_id=None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return load("bloom", tmp_path_factory.mktemp("bloom") / "model")


def texts(model, asked=asking.TEXTS, **parameters):
    return [each["generated_text"] for each in asking.predictions(model, GENERATE, asked, **parameters)]


def continuation(model, prompt, limit=ROOMY, parameters=None, **request):
    parsed = parse_parameters(GENERATE, parameters or {})
    return model.continuation(GenerationRequest(prompt, **request), parsed, limit)


def test_a_seed_repeats_a_sample(llama):
    one, again, other = (
        texts(llama, do_sample=True, temperature=2.0, max_new_tokens=12, seed=seed) for seed in (3, 3, 4)
    )
    assert one == again
    assert one != other
    unseeded = {tuple(texts(llama, do_sample=True, temperature=2.0, max_new_tokens=12)) for _ in range(3)}
    assert len(unseeded) == 3


def test_a_text_ends_with_the_models_token_unless_it_is_ignored(llama, tmp_path):
    [sequence] = llama.encode("paris", parse_parameters(GENERATE, {"max_new_tokens": 10}), ROOMY)
    assert sequence.ends == frozenset()
    [[output]] = asking.outputs_of(llama, [[sequence]])
    second = output.tokens[1]
    assert second != output.tokens[0]
    model = load("llama", tmp_path / "model", eos_token_id=[3, second])
    asked = {"asked": ["paris"], "max_new_tokens": 10}
    assert texts(model, **asked) == [tiny_models.tokenizer().decode(output.tokens[:2])]
    assert texts(model, **asked, ignore_eos=True) == texts(llama, **asked)
    assert continuation(model, [5, 6]).ends == {3, second}
    assert continuation(model, [5, 6], stop_token_ids=[9]).ends == {3, second, 9}
    ignoring = continuation(model, [5, 6], stop_token_ids=[9], parameters={"ignore_eos": True})
    assert ignoring.ends == {9}


def test_penalties_keep_tokens_from_coming_again(llama):
    tokenizer = tiny_models.tokenizer()

    def different(**parameters):
        made = texts(llama, max_new_tokens=30, **parameters)
        return sum(len(set(tokenizer.encode(text, add_special_tokens=False))) for text in made)

    assert different() < different(presence_penalty=2.0)
    assert different(frequency_penalty=-2.0) < different() < different(frequency_penalty=2.0)


def test_a_continuation_ends_before_a_stop_text(llama):
    prompts = asking.TEXTS
    whole_texts = texts(llama, max_new_tokens=12, return_full_text=True)
    new = [text.removeprefix(prompt) for text, prompt in zip(whole_texts, prompts, strict=True)]
    stops = [text[5:8] for text in new]
    cut = [text[: min(text.find(stop) % 999 for stop in stops)] for text in new]
    assert any(cut)
    got = texts(llama, max_new_tokens=12, stop=stops, return_full_text=True)
    assert got == [prompt + text for prompt, text in zip(prompts, cut, strict=True)]
    without = texts(llama, max_new_tokens=12, stop=stops)
    assert without == [text.removeprefix(" ") for text in cut]
    # One that does not come changes nothing.
    never = texts(llama, max_new_tokens=12, stop=["never"])
    assert never == [text.removeprefix(" ") for text in new]


@pytest.mark.parametrize(
    ("stated", "given", "expected"),
    [
        ({}, {}, (False, 1.0)),
        ({"do_sample": True, "temperature": 0.3, "top_k": 9}, {}, (True, 0.3, 9, 1.0, 0.0)),
        ({"do_sample": True, "top_p": 0.5, "min_p": 0.1}, {"top_p": 0.7}, (True, 1.0, 50, 0.7, 0.1)),
        ({"do_sample": True}, {"do_sample": False}, (False, 1.0)),
        ({"top_k": 20}, {"do_sample": True, "top_k": 0, "min_p": 0.2}, (True, 1.0, 0, 1.0, 0.2)),
    ],
    ids=str,
)
def test_a_request_goes_before_the_folder_in_how_tokens_are_drawn(stated, given, expected, tmp_path):
    sampling = continuation(load("llama", tmp_path / "model", **stated), [5], parameters=given).sampling
    got = (sampling.samples, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
    assert got[: len(expected)] == expected
    assert sampling.processors is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("stop", ["a"]),
        ("ignore_eos", True),
        ("presence_penalty", 1.0),
        ("frequency_penalty", 1.0),
    ],
)
def test_whole_batches_refuse_what_they_do_not_have(whole, name, value):
    with pytest.raises(InvalidInputError, match=f"{name}: this model is generated in whole batches"):
        texts(whole, max_new_tokens=3, **{name: value})


def test_whole_batches_neither_stream_nor_chat(whole):
    with pytest.raises(InvalidInputError, match="generated in whole batches, without streams and chats"):
        continuation(whole, "paris")


def test_a_prompt_is_text_or_tokens_that_the_model_knows(llama):
    ids = tiny_models.tokenizer()("a goal")["input_ids"]
    assert continuation(llama, "a goal").prompt == ids == continuation(llama, ids).prompt
    for prompt, reason in (([], "no tokens"), ([-1], "token id -1"), ([5, 10_000], "token id 10000")):
        with pytest.raises(InvalidInputError, match=reason):
            continuation(llama, prompt)
    with pytest.raises(InvalidInputError, match="no chat template"):
        continuation(llama, Chat([{"role": "user", "content": "hello"}]))


def test_prompt_and_continuation_fit_into_the_model_together(llama):
    with pytest.raises(InputTooLongError, match="300 tokens and this endpoint takes 63"):
        continuation(llama, [5] * 300, parameters={"max_new_tokens": 1})
    cut = continuation(llama, [5] * 60 + [6] * 60, InputLimit(50, True), {"max_new_tokens": 20})
    assert (cut.prompt, cut.new_tokens) == ([6] * 44, 20)
    with pytest.raises(InputTooLongError, match="prompt and continuation together may have 64 tokens"):
        continuation(llama, [5], parameters={"max_new_tokens": 64})


def test_a_folder_that_asks_for_beams_is_generated_in_whole_batches(tmp_path):
    model = load("llama", tmp_path / "model", num_beams=3, max_new_tokens=5)
    assert model.steps is None
    assert model.description["batching"] == "whole batches"


CUT = InputLimit(20, truncate=True)
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture
def template(llama, monkeypatch):
    monkeypatch.setattr(llama._pretrained.hf_tokenizer, "chat_template", TEMPLATE)


def test_a_chat_that_is_truncated_has_as_much_room_as_its_rest_leaves(llama, template):
    words = "paris is the capital of france " * 500
    chat = Chat([{"role": "user", "content": words}])
    cut = continuation(llama, chat, CUT)
    assert len(cut.prompt) == 20
    assert cut.new_tokens == llama.max_tokens - 20
    with pytest.raises(InputTooLongError, match=r"at least \d+ tokens"):
        continuation(llama, chat, ROOMY)


def test_a_truncated_text_is_the_same_at_each_path(llama):
    """The special tokens in front of it stay."""
    long, parameters = "paris " * 200, {"max_new_tokens": llama.max_tokens - 10}
    [sequence] = llama.encode(long, parse_parameters(GENERATE, parameters), CUT)
    assert len(sequence.prompt) == 10
    assert continuation(llama, long, CUT, parameters).prompt == sequence.prompt


def test_a_model_that_is_right_only_alone_is_not_computed_in_steps(tmp_path, monkeypatch):
    """Nothing else would notice that one text changes another."""
    generated = DecoderSteps.generated

    def leaking(steps, continuations):
        answers = generated(steps, continuations)
        return answers if len(answers) == 1 else [answer.flip(-1) for answer in answers]

    monkeypatch.setattr(DecoderSteps, "generated", leaking)
    model = load("llama", tmp_path / "model")
    assert model.description["batching"] == "whole batches"
    assert "in steps, mixed lengths: 6 of 6" in " ".join(model.description["proof"]["because"])
