"""The models that are served: three samples, and some of usual sizes with random weights."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.environments import cache_folder

BUILT: Final = Path(__file__).parents[1] / "models" / "build"
CLASSIFICATION: Final = "text-classification"
EMBEDDING: Final = "feature-extraction"
RANKING: Final = "text-ranking"
GENERATION: Final = "text-generation"
# The endpoint of the sample that generates.
CHAT: Final = "chat"
SEED: Final = 7
MAX_TOKENS: Final = 512
# Part of the folder's name: a change of the recipe makes new models.
RECIPE: Final = 1


@dataclass(frozen=True)
class BenchModel:
    """A model folder and its task."""

    name: str
    folder: Path
    task: str
    # What its endpoint needs or takes more than others.
    memory: str = "1Gi"
    limits: Mapping[str, int] = field(default_factory=dict)


def distilbert() -> BenchModel:
    """Return the classifier of DistilBERT's size, which is made when it is not there."""
    return _made("distilbert", CLASSIFICATION, _make_distilbert)


def ranker() -> BenchModel:
    """Return the ranker of MiniLM's size, which is made when it is not there."""
    return _made("ranker", RANKING, _make_ranker)


def encoder(name: str) -> BenchModel:
    """Return a classifier of one of the sizes in ENCODERS, which is made when it is not there."""
    return _made(name, CLASSIFICATION, partial(_make_encoder, name))


def nothing() -> BenchModel:
    """Return a classifier of hardly any size: what a replica costs without a model."""
    return _made("nothing", CLASSIFICATION, _make_nothing)


def sample(name: str) -> BenchModel:
    """Return one of the sample models; `make models` builds them."""
    return BenchModel(name, _built(name), CLASSIFICATION if name == "sentiment" else EMBEDDING)


def chat() -> BenchModel:
    """Return the sample that generates."""
    return BenchModel(CHAT, _built("smollm2"), GENERATION, "2Gi", {"maxInputTokens": 1024})


def _built(name: str) -> Path:
    folder = BUILT / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: run `make models`")
    return folder


MODELS: Final[Mapping[str, Callable[[], BenchModel]]] = {
    "distilbert": distilbert,
    "sentiment": lambda: sample("sentiment"),
    "minilm": lambda: sample("minilm"),
    "ranker": ranker,
}


def _made(name: str, task: str, make: Callable[[Path], None]) -> BenchModel:
    folder = cache_folder() / f"models-{RECIPE}" / name
    if not folder.is_dir():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        make(unfinished)
        unfinished.rename(folder)
    return BenchModel(name, folder, task)


def _make_distilbert(folder: Path) -> None:
    _write(folder, {})


def _make_nothing(folder: Path) -> None:
    _write(folder, {"dim": 8, "hidden_dim": 8, "n_heads": 1, "n_layers": 1})


def _make_ranker(folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification

    config = AutoConfig.from_pretrained(BUILT / "minilm", num_labels=1)
    torch.manual_seed(SEED)
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BUILT / "minilm").save_pretrained(folder)


# Types of transformers, with what the models' own configurations say; the defaults of ModernBERT and MPNet
# are the sizes of -base. All layers are there, and only the vocabulary is that of the sample.
ENCODERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "modernbert-base": ("modernbert", {}),
    "deberta-v3-base": (
        "deberta-v2",
        {
            **{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
            **{"intermediate_size": 3072, "type_vocab_size": 0, "max_position_embeddings": MAX_TOKENS},
            **{"relative_attention": True, "max_relative_positions": -1, "position_buckets": 256},
            **{"pos_att_type": ["p2c", "c2p"], "share_att_key": True, "norm_rel_ebd": "layer_norm"},
            "position_biased_input": False,
        },
    ),
    "mpnet-base": ("mpnet", {"max_position_embeddings": MAX_TOKENS + 2}),
}


def _make_encoder(name: str, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = _tokenizer()
    kind, sizes = ENCODERS[name]
    ids = {f"{each}_token_id": getattr(tokenizer, f"{each}_token_id") for each in ("pad", "cls", "sep")}
    ids |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), num_labels=2, **ids, **sizes)
    torch.manual_seed(SEED)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> Any:
    """Return the tokenizer of the sample sentiment, without its limit."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = AutoTokenizer.from_pretrained(BUILT / "sentiment").backend_tokenizer
    words.no_truncation()
    words.no_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


def _write(folder: Path, sizes: dict[str, int]) -> None:
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    tokenizer = _tokenizer()
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
        **sizes,
    )
    torch.manual_seed(SEED)
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
