"""Tiny models with random weights, one for each task: they show the plumbing, not what models know."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from serve_app.contract import Task

WORDS = "the a goal was scored in london paris ada wrote this is good bad great example . , ! sports politics"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
MAX_TOKENS = 64


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    vocabulary = list(dict.fromkeys([*SPECIAL, *WORDS.split(), *LETTERS]))
    ids = {token: index for index, token in enumerate(vocabulary)}
    fast = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    fast.normalizer = BertNormalizer()
    fast.pre_tokenizer = BertPreTokenizer()
    fast.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        eos_token="[SEP]",
        bos_token="[CLS]",
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def bert_config(**options: object) -> transformers.BertConfig:
    return transformers.BertConfig(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.5,
        **options,
    )


def _encoder(model_class: type, **options: object) -> transformers.PreTrainedModel:
    return model_class(bert_config(**options))


def _labels(*names: str) -> dict[str, object]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def _gpt2() -> transformers.PreTrainedModel:
    size = len(tokenizer())
    config = transformers.GPT2Config(
        vocab_size=size, n_positions=MAX_TOKENS, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5
    )
    config.bos_token_id = config.eos_token_id = tokenizer().eos_token_id
    return transformers.GPT2LMHeadModel(config)


# What the tiny model of summarization states, with the names that T5's own config.json has.
STATED = {
    "prefix": "summarize : ",
    "min_length": 6,
    "max_length": 12,
    "num_beams": 2,
    "length_penalty": 2.0,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
}


def _t5(**options: object) -> transformers.PreTrainedModel:
    # With the default initializer_factor, every generated token is padding, and every text empty.
    config = transformers.T5Config(
        vocab_size=len(tokenizer()),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        initializer_factor=5.0,
        **options,
    )
    config.pad_token_id = config.decoder_start_token_id = tokenizer().pad_token_id
    config.eos_token_id = tokenizer().eos_token_id
    return transformers.T5ForConditionalGeneration(config)


MAKERS = {
    Task.TEXT_CLASSIFICATION: lambda: _encoder(
        transformers.BertForSequenceClassification, **_labels("BAD", "GOOD", "NEUTRAL")
    ),
    Task.TOKEN_CLASSIFICATION: lambda: _encoder(
        transformers.BertForTokenClassification, **_labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    ),
    Task.ZERO_SHOT_CLASSIFICATION: lambda: _encoder(
        transformers.BertForSequenceClassification, **_labels("contradiction", "neutral", "entailment")
    ),
    Task.FEATURE_EXTRACTION: lambda: _encoder(transformers.BertModel),
    Task.TEXT_RANKING: lambda: _encoder(transformers.BertForSequenceClassification, num_labels=1),
    Task.FILL_MASK: lambda: _encoder(transformers.BertForMaskedLM),
    Task.TEXT_GENERATION: _gpt2,
    Task.TEXT2TEXT_GENERATION: _t5,
    Task.SUMMARIZATION: lambda: _t5(task_specific_params={"summarization": STATED}),
    Task.QUESTION_ANSWERING: lambda: _encoder(transformers.BertForQuestionAnswering),
    Task.TRANSLATION: lambda: _t5(task_specific_params={"translation_en_to_de": STATED}),
}


def write(task: Task, folder: Path) -> Path:
    """Write the tiny model of `task` to `folder`."""
    torch.manual_seed(7)
    MAKERS[task]().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
