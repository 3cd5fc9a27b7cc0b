"""What a folder says about generation is obeyed where neither the endpoint nor the request says otherwise."""

import json

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Metaspace

from serve_app.contract import Task
from serve_app.engine.base import InputLimit
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import parse_parameters
from serve_app.tasks import task_class
from tests.folders import architectures, asking
from tests.serve import tiny_models

GENERATE, REWRITE = Task.TEXT_GENERATION, Task.TEXT2TEXT_GENERATION
NAMES = {GENERATE: "gpt2", REWRITE: "t5"}


def folder_with(path, task, **generation):
    folder = architectures.write(NAMES[task], task, path / "model")
    file = folder / "generation_config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text(encoding="utf-8")), **generation}), encoding="utf-8"
    )
    return folder


def made_by_transformers(folder, task, **options):
    """Return what transformers' own `generate` makes of the folder, with the folder's options."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = architectures.auto_class(task).from_pretrained(folder)
    texts = []
    for text in asking.TEXTS:
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        made = model.generate(**inputs, **options, pad_token_id=tokenizer.pad_token_id)[0]
        new = made[inputs["input_ids"].shape[1] :] if task is GENERATE else made
        texts.append(tokenizer.decode(new, skip_special_tokens=True))
    return texts


def made_by_us(folder, task, **parameters):
    model = task_class(task)(folder, "float32")
    return [each["generated_text"] for each in asking.predictions(model, task, **parameters)]


@pytest.mark.parametrize("task", [GENERATE, REWRITE])
@pytest.mark.parametrize(
    "stated",
    [
        {"max_new_tokens": 7},
        {"max_new_tokens": 9, "repetition_penalty": 1.8},
        {"max_new_tokens": 9, "num_beams": 3, "no_repeat_ngram_size": 2},
        {"max_new_tokens": 9, "no_repeat_ngram_size": 2},
        {"max_new_tokens": 9, "suppress_tokens": [40, 41, 42]},
    ],
    ids=str,
)
def test_what_the_folder_states_is_obeyed(stated, task, tmp_path):
    folder = folder_with(tmp_path, task, **stated)
    assert made_by_us(folder, task) == made_by_transformers(folder, task)


def test_a_length_that_the_folder_states_is_obeyed(tmp_path):
    """Summaries of some models have a length that is not the default."""
    folder = folder_with(tmp_path, REWRITE, max_length=90, eos_token_id=None)
    made = made_by_us(folder, REWRITE)
    assert made == made_by_transformers(folder, REWRITE)
    assert max(len(text.split()) for text in made) > 64


@pytest.mark.parametrize("task", [GENERATE, REWRITE])
def test_a_request_goes_before_the_folder(task, tmp_path):
    folder = folder_with(tmp_path, task, max_new_tokens=9, repetition_penalty=1.8, do_sample=True)
    options = {"max_new_tokens": 5, "repetition_penalty": 1.0, "do_sample": False}
    assert made_by_us(folder, task, **options) == made_by_transformers(folder, task, **options)


@pytest.mark.parametrize("task", [GENERATE, REWRITE])
@pytest.mark.parametrize(
    "stated",
    [
        {"return_dict_in_generate": True},
        {"return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True},
        {"num_beams": 2, "num_return_sequences": 2},
    ],
    ids=str,
)
def test_one_text_comes_back_for_each_text(stated, task, tmp_path):
    folder = folder_with(tmp_path, task, max_new_tokens=6, **stated)
    options = {"return_dict_in_generate": False, "num_return_sequences": 1}
    assert made_by_us(folder, task) == made_by_transformers(folder, task, **options)


@pytest.mark.parametrize("task", [GENERATE, REWRITE])
def test_several_samples_of_each_text_are_one(task, tmp_path):
    folder = folder_with(tmp_path, task, max_new_tokens=6, num_return_sequences=3, do_sample=True)
    assert len(made_by_us(folder, task)) == len(asking.TEXTS)


@pytest.mark.parametrize("temperature", [1e-40, 1e-320, 1e-6])
@pytest.mark.parametrize("task", [GENERATE, REWRITE])
def test_hardly_any_temperature_is_greedy(task, temperature, tmp_path):
    folder = folder_with(tmp_path, task, max_new_tokens=6)
    assert made_by_us(folder, task, do_sample=True, temperature=temperature) == made_by_us(folder, task)


@pytest.mark.parametrize("asked", [400, 65])
def test_more_tokens_than_the_decoder_numbers_are_refused(asked, tmp_path):
    folder = architectures.write("bart", REWRITE, tmp_path / "model")
    model = task_class(REWRITE)(folder, "float32")
    with pytest.raises(InvalidInputError, match=f"got {asked}; this model generates up to 64 tokens"):
        asking.predictions(model, REWRITE, ["paris"], max_new_tokens=asked)


@pytest.mark.parametrize("asked", [{}, {"max_new_tokens": 32}])
def test_as_many_tokens_as_the_decoder_numbers_are_generated(asked, tmp_path):
    torch.manual_seed(7)
    config = architectures.config_of("bart", max_position_embeddings=32)
    model = transformers.BartForConditionalGeneration(config)
    architectures.spread(model)
    # The text never ends by itself.
    model.final_logits_bias[0, 3] = -1e9
    model.generation_config.eos_token_id = model.generation_config.forced_eos_token_id = None
    model.save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    assert len(asking.predictions(task_class(REWRITE)(tmp_path, "float32"), REWRITE, ["paris"], **asked)) == 1


@pytest.mark.parametrize("task", [GENERATE, REWRITE])
def test_what_may_be_generated_counts_in_a_batch(task, tmp_path):
    """By the request, by the folder, and for each beam."""
    folder = folder_with(tmp_path, task, max_new_tokens=9, num_beams=3)
    model = task_class(task)(folder, "float32")

    def counted(**given):
        [sequence] = model.encode("paris", parse_parameters(task, given), InputLimit(20, truncate=True))
        return sequence.tokens - sequence.length

    assert counted() == 27
    assert counted(max_new_tokens=5) == 15


def test_a_prompt_that_is_too_long_loses_its_beginning(tmp_path):
    folder = architectures.write("gpt2", GENERATE, tmp_path / "model")
    model = task_class(GENERATE)(folder, "float32")
    text = " ".join(["goal"] * 80 + ["paris", "london"])
    limit = InputLimit(model.max_tokens, truncate=True)
    [sequence] = model.encode(text, parse_parameters(GENERATE, {"max_new_tokens": 8}), limit)
    assert sequence.length == model.max_tokens - 8
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(sequence.features["input_ids"], skip_special_tokens=True).endswith("paris london")


def endless(folder):
    """Write a model that continues hello with world and red, and red for ever."""
    words = ["[PAD]", "</s>", "<unk>", "▁hello", "▁world", "▁red"]
    fast = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    fast.pre_tokenizer = Metaspace()
    fast.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    model = transformers.LlamaForCausalLM(architectures.config_of("llama", vocab_size=6, eos_token_id=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1.0)
        # Each word has a direction of its own, and the head gives the next word.
        for at, following in ((3, 4), (4, 5), (5, 5)):
            model.model.embed_tokens.weight[at, at] = 1.0
            model.lm_head.weight[following, at] += 1.0
    model.save_pretrained(folder)


def test_the_blank_between_prompt_and_continuation_stays(tmp_path):
    endless(tmp_path)
    served = task_class(GENERATE)(tmp_path, "float32")
    ask = {"max_new_tokens": 2, "return_full_text": True}
    [got] = asking.predictions(served, GENERATE, ["hello"], **ask)
    assert got["generated_text"] == "hello world red"


@pytest.mark.parametrize(
    ("stop", "texts"),
    [("world", ["", "red red red red red red"]), ("red", ["world", ""]), (["ld r", "d red"], ["wor", "re"])],
    ids=str,
)
def test_a_text_that_ends_generation_is_obeyed(stop, texts, tmp_path):
    """A continuation ends before it, as before those of a request."""
    endless(tmp_path)
    stated = {"max_new_tokens": 6, "stop_strings": stop, "eos_token_id": 1}
    (tmp_path / "generation_config.json").write_text(json.dumps(stated), encoding="utf-8")
    served = task_class(GENERATE)(tmp_path, "float32")
    got = asking.predictions(served, GENERATE, ["hello", "red"])
    assert [each["generated_text"].strip() for each in got] == texts
    (tmp_path / "generation_config.json").write_text(json.dumps({**stated, "stop_strings": None}))
    served = task_class(GENERATE)(tmp_path, "float32")
    stops = [stop] if isinstance(stop, str) else stop
    assert asking.predictions(served, GENERATE, ["hello", "red"], stop=stops) == got
