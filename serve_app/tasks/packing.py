"""Run an encoder without padding: the tokens of all sequences in one row, attention within each sequence.

Embeddings and heads see the padded batch; only the encoder's layers, where the time goes, see the row. The
attention function is registered with transformers' AttentionInterface.
"""

from typing import Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

ATTENTION: Final = "model_endpoints_packed"

# A long row is filled up to a multiple of these: oneDNN compiles its kernels for each number of tokens anew.
_STEP: Final = 16
_LONG: Final = 64

# Model types whose layers know of other tokens by attention alone, and the module that holds the layers.
# Their positions are added to the embeddings; one that adds them in the layers would need the padded batch.
_LAYERS: Final = {
    "bert": "encoder",
    "camembert": "encoder",
    "distilbert": "transformer",
    "electra": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
}


def can_pack(model: Any) -> bool:
    """Return whether `model` is a transformers model that can run packed."""
    return model.config.model_type in _LAYERS and not getattr(model.config, "is_decoder", False)


def pack(model: Any) -> None:
    """Let `model` run packed: from now on each call needs `present`, a (batch, tokens) mask of bool."""
    layers = getattr(model.base_model, _LAYERS[model.config.model_type])
    layers.register_forward_pre_hook(_to_row, with_kwargs=True)
    layers.register_forward_hook(_to_batch, with_kwargs=True)
    model.set_attn_implementation(ATTENTION)


def _to_row(layers: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
    """Turn hidden states of shape (batch, tokens, width) into (1, present tokens and spare ones, width)."""
    options = dict(options)
    hidden = arguments[0] if arguments else options.pop("hidden_states")
    present = options["present"]
    row = hidden[present]
    lengths = present.sum(dim=1).tolist()
    spare = -len(row) % _STEP if len(row) > _LONG else 0
    if spare:
        # They attend to each other and to nothing else.
        row = torch.nn.functional.pad(row, (0, 0, 0, spare))
        lengths.append(spare)
    return (row[None], *arguments[1:]), {**options, "lengths": lengths}


def _to_batch(layers: Any, arguments: Any, options: dict[str, Any], output: Any) -> Any:
    """Turn the row back into a batch; what was padding is zero."""
    row, present = output.last_hidden_state, options["present"]
    batch = row.new_zeros((*present.shape, row.shape[-1]))
    batch[present] = row[0, : present.sum()]
    output.last_hidden_state = batch
    return output


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    lengths: list[int],
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each of the sequences that stand one after the other; (1, heads, tokens, width) each."""
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    attended = [scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in parts]
    return torch.cat(attended, dim=2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attention)
