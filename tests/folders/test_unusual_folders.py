"""Folders that lack what most have, or have it in another form: limits, padding, masks, poolers, decoders."""

import json

import pytest
import torch
import transformers

from serve_app.contract import Task
from serve_app.engine.base import InputLimit, ModelLoadError
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import parse_parameters
from serve_app.tasks import task_class
from tests.folders import architectures, asking
from tests.folders.test_reports import bare_tokenizer, change, with_an_adapter
from tests.serve import tiny_models

CLASSIFY, FEATURES, GENERATE = Task.TEXT_CLASSIFICATION, Task.FEATURE_EXTRACTION, Task.TEXT_GENERATION


def agrees(folder):
    """Fail unless the folder's labels have transformers' scores, alone and in a batch."""
    right = asking.right_answers(architectures.auto_class(CLASSIFY), CLASSIFY, folder)
    model = task_class(CLASSIFY)(folder, "float32")
    for alone in (True, False):
        for got, wanted in zip(asking.predictions(model, CLASSIFY, alone=alone), right, strict=True):
            assert got["score"] == pytest.approx(float(wanted.max()), abs=1e-4)
    return model


@pytest.mark.parametrize("limit", [None, tiny_models.MAX_TOKENS], ids=["no limit", "a limit"])
def test_xlnet_states_no_positions_and_has_padding_on_the_left(limit, tmp_path):
    folder = architectures.write("xlnet", CLASSIFY, tmp_path / "model")
    change(folder, "tokenizer_config.json", padding_side="left", model_max_length=limit)
    assert agrees(folder).max_tokens >= tiny_models.MAX_TOKENS


def test_mpnet_with_a_tokenizer_that_names_no_mask(tmp_path):
    folder = architectures.write("mpnet", CLASSIFY, tmp_path / "model")
    change(folder, "tokenizer_config.json", model_input_names=["input_ids"])
    agrees(folder)


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "mpnet", "camembert"])
def test_vectors_need_no_pooler(name, tmp_path):
    folder = architectures.write(name, Task.FILL_MASK, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    found = asking.predictions(task_class(FEATURES)(folder, "float32"), FEATURES)
    for got, text in zip(found, asking.TEXTS, strict=True):
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=name == "bert")
        with torch.inference_mode():
            right = model(**inputs).last_hidden_state[0].mean(dim=0)
        assert got["embedding"] == pytest.approx(right.tolist(), abs=1e-4)


def test_a_decoder_of_bart_generates_alike_alone_and_in_batches(tmp_path):
    """In transformers, padding in front of a text moves its positions."""
    folder = architectures.write("bart", GENERATE, tmp_path / "model")
    right = asking.right_answers(architectures.auto_class(GENERATE), GENERATE, folder)
    model = task_class(GENERATE)(folder, "float32")
    assert model.description["proof"]["step"].endswith("equal lengths")
    for alone in (True, False):
        got = asking.predictions(model, GENERATE, alone=alone, max_new_tokens=asking.NEW_TOKENS)
        assert [each["generated_text"] for each in got] == right


def test_a_bert_that_was_trained_as_a_decoder_generates(tmp_path):
    torch.manual_seed(7)
    config = architectures.config_of("bert", is_decoder=True, bos_token_id=2, eos_token_id=3)
    model = transformers.BertLMHeadModel(config)
    architectures.spread(model)
    model.save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    right = asking.right_answers(architectures.auto_class(GENERATE), GENERATE, tmp_path)
    served = task_class(GENERATE)(tmp_path, "float32")
    got = asking.predictions(served, GENERATE, max_new_tokens=asking.NEW_TOKENS)
    assert [each["generated_text"] for each in got] == right


@pytest.mark.parametrize("task", [GENERATE, CLASSIFY])
def test_an_adapter_without_a_base_or_beside_one_is_refused(task, tmp_path):
    folder = tmp_path / "alone"
    folder.mkdir()
    with_an_adapter(folder)
    beside = tiny_models.write(task, tmp_path / "beside")
    with_an_adapter(beside)
    for each in (folder, beside):
        with pytest.raises(
            ModelLoadError, match=r"has adapter_config.json: adapters are not applied; .*'org"
        ):
            task_class(task)(each, "float32")


@pytest.mark.parametrize(
    "task",
    [Task.TOKEN_CLASSIFICATION, Task.FILL_MASK, GENERATE, Task.TEXT2TEXT_GENERATION, Task.SUMMARIZATION],
)
def test_a_text_that_becomes_no_token_is_refused_in_every_task(task, tmp_path):
    folder = tiny_models.write(task, tmp_path / "model")
    tokenizer = bare_tokenizer()
    tokenizer.mask_token = "[MASK]"
    tokenizer.save_pretrained(folder)
    if task is Task.SUMMARIZATION:
        change(folder, task_specific_params={})
    model = task_class(task)(folder, "float32")
    with pytest.raises(InvalidInputError, match="becomes no token|within the first 0 tokens"):
        model.encode("\u200b", parse_parameters(task, {}), InputLimit(20, truncate=True))


def test_many_fills_ask_for_the_list_of_special_tokens_once(tmp_path, monkeypatch):
    """A tokenizer makes the list anew at each access, which took minutes for one text of 10 masks."""
    folder = tiny_models.write(Task.FILL_MASK, tmp_path / "model")
    model = task_class(Task.FILL_MASK)(folder, "float32")

    def asked_again(self):
        raise AssertionError("the list was asked for again")

    monkeypatch.setattr(type(model._pretrained.hf_tokenizer), "all_special_ids", property(asked_again))
    monkeypatch.setattr(type(model._pretrained.hf_tokenizer), "all_special_tokens", property(asked_again))
    [got] = asking.predictions(model, Task.FILL_MASK, ["[MASK] goal " * 10], top_k=70)
    assert len(got["fills"]) == 700


def test_words_in_pieces_continue_the_prompt(tmp_path):
    """The decoder of WordPiece joins ##ada to the word before it, also to the last one of the prompt."""
    folder = architectures.write("llama", GENERATE, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": False}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    ids = tokenizer["model"]["vocab"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1.0)
        for at, (token, following) in enumerate([("goal", "##s"), ("##s", "paris"), ("[SEP]", "##s")]):
            model.model.embed_tokens.weight[ids[token], at] = 1.0
            model.lm_head.weight[ids[following], at] += 1.0
    model.save_pretrained(folder)
    served = task_class(GENERATE)(folder, "float32")
    [got] = asking.predictions(served, GENERATE, ["goal"], max_new_tokens=2, return_full_text=True)
    assert got["generated_text"] == "goals paris"
