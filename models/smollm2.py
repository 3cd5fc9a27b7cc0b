"""Unpack the chat model SmolLM2 from its GGUF file into a folder of transformers; must not train."""

import shutil
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from models.cards import smollm2_card
from models.packages import smollm2_file, smollm2_licence
from models.score import LowScoreError

# The original's weights are in bfloat16. The file has them in 4 bits, the embeddings in 8. What that rounding
# changed is 60 times what rounding to bfloat16 changes, 5 times in the embeddings; the norms lose nothing.
DTYPE: Final = torch.bfloat16
QUESTION: Final = "What is the capital of France?"
ANSWER: Final = "The capital of France is Paris."
MAX_ANSWER_TOKENS: Final = 32


def make_smollm2(folder: Path) -> None:
    """Write the model and its tokenizer, and refuse them unless they know the capital of France."""
    file = smollm2_file()
    model = _read_model(file)
    model.save_pretrained(folder)
    read_tokenizer(file, model.config.max_position_embeddings).save_pretrained(folder)
    shutil.copyfile(smollm2_licence(), folder / "LICENSE")
    (folder / "README.md").write_text(smollm2_card(file.name, QUESTION, ANSWER), encoding="utf-8")
    _require_answer(folder)


def read_tokenizer(file: Path, max_tokens: int) -> PreTrainedTokenizerFast:
    """Return the tokenizer that the GGUF file states, with the pre-tokenizer of the original."""
    stated = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    words = stated.backend_tokenizer
    # The file calls its pre-tokenizer `smollm`. transformers does not know that one and splits as GPT-2 does,
    # which tears the last space before a digit off those in front of it. This is what the original states.
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=stated.bos_token,
        eos_token=stated.eos_token,
        pad_token=stated.pad_token,
        unk_token=stated.unk_token,
        chat_template=stated.chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=max_tokens,
        # A prompt is continued at its right end, so no padding may stand there.
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def _read_model(file: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=DTYPE)
    # The weights are unpacked. transformers takes them for packed ones all the same, which it does not save.
    model.hf_quantizer = None
    del model.config.quantization_config
    # As the original has it; without, the file would say that it is only a copy of config.json's.
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        # The token <|im_end|>, which ends each message of a chat.
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    return model


def _require_answer(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    tokens = model.generate(**chat, do_sample=False, max_new_tokens=MAX_ANSWER_TOKENS)[0]
    answer = tokenizer.decode(tokens[chat["input_ids"].shape[1] :])
    # The token at its end shows that the model knows where to stop.
    if answer != ANSWER + tokenizer.eos_token:
        raise LowScoreError(f"model 'smollm2' answered {QUESTION!r} with {answer!r} instead of {ANSWER!r}")
