"""Tiny folders with random weights: one for each architecture of transformers and each of its tasks."""

import math
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig
from transformers.models.auto import modeling_auto as mappings
from transformers.pytorch_utils import Conv1D

from serve_app.contract import Task
from tests.serve import tiny_models

MAX_TOKENS = tiny_models.MAX_TOKENS
VOCABULARY = len(tiny_models.tokenizer())

# Names that configurations have for the same sizes; one takes those that it knows.
_SIZES = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "dim", "emb_dim", "n_embd", "embed_dim", "word_embed_proj_dim"), 32
    ),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers"), 2),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "n_head", "encoder_attention_heads"), 2),
    **dict.fromkeys(("decoder_attention_heads", "num_key_value_heads", "num_decoder_attention_heads"), 2),
    **dict.fromkeys(("num_encoder_attention_heads",), 2),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("d_ff", "d_inner", "ffn_hidden_size", "n_inner", "dff"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), MAX_TOKENS),
    "embedding_size": 32,
    "head_dim": 16,
    "d_kv": 16,
    "d_head": 16,
}
_IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 0, "pad_index": 0}

# What else a tiny model of that type needs. Sizes that positions of RoBERTa's kind take are two more.
_OFFSET = {"max_position_embeddings": MAX_TOKENS + 2, "pad_token_id": 0}
_OWN = {
    "big_bird": {"attention_type": "original_full"},
    "canine": {"num_hash_buckets": 64, "downsampling_rate": 2, "local_transformer_stride": 16},
    "camembert": _OFFSET,
    "convbert": {"head_ratio": 1, "conv_kernel_size": 3},
    "data2vec-text": _OFFSET,
    "esm": {"position_embedding_type": "rotary", "mask_token_id": 4, "token_dropout": False},
    "fsmt": {"src_vocab_size": VOCABULARY, "tgt_vocab_size": VOCABULARY, "langs": ["en", "de"]},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    "funnel": {"architectures": ["FunnelModel"], "block_sizes": [1, 1], "num_decoder_layers": 1},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "ibert": _OFFSET,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "use_mamba_kernels": False},
    "led": {
        "attention_window": 8,
        "max_encoder_position_embeddings": MAX_TOKENS,
        "max_decoder_position_embeddings": MAX_TOKENS,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "longformer": {"attention_window": 8, **_OFFSET},
    "luke": {"entity_vocab_size": 4, "entity_emb_size": 8, **_OFFSET},
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 2},
    "mobilebert": {"intra_bottleneck_size": 32, "embedding_size": 32},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 16},
    "modernbert-decoder": {"global_attn_every_n_layers": 2, "local_attention": 16},
    "mpnet": _OFFSET,
    "mpt": {"n_heads": 2},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 64},
    "codegen": {"rotary_dim": 8, "n_head": 4, "num_attention_heads": 4},
    "gptj": {"rotary_dim": 8},
    "qwen2": {"max_position_embeddings": 256},
    "recurrent_gemma": {
        "block_types": ["recurrent", "attention"],
        "lru_width": 32,
        "attention_window_size": 16,
    },
    "roberta": _OFFSET,
    "roberta-prelayernorm": _OFFSET,
    "roc_bert": {"pronunciation_vocab_size": VOCABULARY, "shape_vocab_size": VOCABULARY},
    "rwkv": {"attention_hidden_size": 32, "context_length": MAX_TOKENS},
    "xlm": {"n_langs": 1, "pad_index": 0, "mask_index": 4},
    "flaubert": {"n_langs": 1, "pad_index": 0, "mask_index": 4},
    "xlm-roberta": _OFFSET,
    "xlm-roberta-xl": _OFFSET,
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX", **_OFFSET},
}
_HEADS = {
    Task.TEXT_CLASSIFICATION: (
        mappings.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "SequenceClassification",
    ),
    Task.TOKEN_CLASSIFICATION: (mappings.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES, "TokenClassification"),
    Task.FEATURE_EXTRACTION: (mappings.MODEL_MAPPING_NAMES, ""),
    Task.FILL_MASK: (mappings.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "MaskedLM"),
    Task.QUESTION_ANSWERING: (mappings.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES, "QuestionAnswering"),
    Task.TEXT_GENERATION: (mappings.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "CausalLM"),
    Task.TEXT2TEXT_GENERATION: (mappings.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, "Seq2SeqLM"),
}
ENCODERS = [
    "albert",
    "bert",
    "big_bird",
    "camembert",
    "canine",
    "convbert",
    "data2vec-text",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "ernie",
    "esm",
    "eurobert",
    "flaubert",
    "fnet",
    "funnel",
    "ibert",
    "longformer",
    "luke",
    "megatron-bert",
    "mobilebert",
    "modernbert",
    "mpnet",
    "mra",
    "nomic_bert",
    "nystromformer",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "squeezebert",
    "xlm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xlnet",
    "xmod",
    "yoso",
]
DECODERS = [
    "biogpt",
    "bloom",
    "codegen",
    "cohere",
    "ctrl",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "granite",
    "helium",
    "jamba",
    "lfm2",
    "llama",
    "mamba",
    "mamba2",
    "mistral",
    "mixtral",
    "modernbert-decoder",
    "mpt",
    "olmo",
    "olmo2",
    "openai-gpt",
    "opt",
    "persimmon",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "recurrent_gemma",
    "rwkv",
    "smollm3",
    "stablelm",
    "starcoder2",
    "xglm",
]
# What is not computed in steps; test_steps.py has the reasons.
WHOLE_BATCHES = {
    "bloom",
    "codegen",
    "falcon",
    "gpt_neo",
    "gptj",
    "jamba",
    "lfm2",
    "mamba",
    "mamba2",
    "mpt",
    "openai-gpt",
    "recurrent_gemma",
    "stablelm",
    "xglm",
}
ENCODER_DECODERS = [
    "bart",
    "bigbird_pegasus",
    "blenderbot",
    "fsmt",
    "led",
    "longt5",
    "m2m_100",
    "marian",
    "mbart",
    "mt5",
    "pegasus",
    "plbart",
    "switch_transformers",
    "t5",
    "umt5",
]
# Encoders do not generate, as a test of its own shows.
_TASKS = {
    **dict.fromkeys(ENCODERS, [task for task in _HEADS if task is not Task.TEXT_GENERATION]),
    **dict.fromkeys(DECODERS, [task for task in _HEADS if task is not Task.FILL_MASK]),
    **dict.fromkeys(
        ENCODER_DECODERS,
        [
            Task.TEXT2TEXT_GENERATION,
            Task.TEXT_CLASSIFICATION,
            Task.FEATURE_EXTRACTION,
            Task.QUESTION_ANSWERING,
        ],
    ),
}
PAIRS = [(name, task) for name, tasks in _TASKS.items() for task in tasks if name in _HEADS[task][0]]


def auto_class(task: Task) -> type:
    return getattr(transformers, f"AutoModelFor{_HEADS[task][1]}" if _HEADS[task][1] else "AutoModel")


def config_of(name: str, **options: object) -> transformers.PretrainedConfig:
    """Return the configuration of a tiny model of the type `name`."""
    default = AutoConfig.for_model(name)
    known = {**default.to_dict(), **dict.fromkeys(default.attribute_map)}
    sizes = {key: value for key, value in {**_SIZES, **_IDS}.items() if key in known}
    return AutoConfig.for_model(name, **{**sizes, "vocab_size": VOCABULARY, **_OWN.get(name, {}), **options})


def write(name: str, task: Task, folder: Path) -> Path:
    """Write a folder of that type for the task, with weights that make answers differ."""
    torch.manual_seed(7)
    labels = {"num_labels": 3} if "classification" in task else {}
    model = auto_class(task).from_config(config_of(name, **labels)).eval()
    spread(model)
    if (name, task) == ("mobilebert", Task.QUESTION_ANSWERING):
        # Its vectors have no norm, and logits of thousands would hide any difference.
        with torch.no_grad():
            model.qa_outputs.weight.mul_(1e-3)
    if model.can_generate():
        model.generation_config.eos_token_id = 3
        if model.config.is_encoder_decoder:
            model.generation_config.decoder_start_token_id = 0
    if model.config.is_encoder_decoder:
        model.config.decoder_start_token_id = 0
    model.save_pretrained(folder)
    tokenizer = tiny_models.tokenizer()
    # transformers puts its own tokenizer of bytes in place of this one.
    tokenizer.model_max_length = 256 if name == "qwen2" else MAX_TOKENS
    tokenizer.save_pretrained(folder)
    return folder


def spread(model: torch.nn.Module) -> None:
    """Give linear layers and embeddings weights of about the size that training gives them."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | Conv1D):
                module.weight.normal_(0, 1.5 / math.sqrt(module.weight.shape[-1]))
            elif isinstance(module, torch.nn.Embedding):
                module.weight.normal_(0, 0.5)
