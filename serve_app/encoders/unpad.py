"""Run an encoder without padding: the tokens of all sequences in one row, attention within each sequence.

Embeddings and heads see the padded batch; only the encoder's layers, where the time goes, see the row. They
are computed here and not by transformers' code of them, which with a short text and a small model spends a
third of the time in Python.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch.nn import Sequential
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers.activations import GELUActivation
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from serve_app.encoders.onednn import LinearGelu, LinearPlus

# A long row is filled up to a multiple of these: oneDNN compiles its kernels for each number of tokens anew.
_STEP: Final = 8
_LONG: Final = 64

# Where the parts of a layer are, by what `_Layer` calls them.
_BERT: Final = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attended_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "activation": "intermediate.intermediate_act_fn",
    "narrow": "output.dense",
    "norm": "output.LayerNorm",
}
_DISTILBERT: Final = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attended": "attention.out_lin",
    "attended_norm": "sa_layer_norm",
    "widen": "ffn.lin1",
    "activation": "ffn.activation",
    "narrow": "ffn.lin2",
    "norm": "output_layer_norm",
}

# Model types with such layers, and the module that holds them. Their positions are added to the embeddings;
# one that adds them in the layers would need the padded batch.
_ENCODERS: Final = {
    "bert": ("encoder", _BERT),
    "camembert": ("encoder", _BERT),
    "distilbert": ("transformer", _DISTILBERT),
    "electra": ("encoder", _BERT),
    "roberta": ("encoder", _BERT),
    "xlm-roberta": ("encoder", _BERT),
}

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


def can_pack(model: Any) -> bool:
    """Return whether `model` is a transformers model that can run packed."""
    return model.config.model_type in _ENCODERS and not getattr(model.config, "is_decoder", False)


def pack(model: Any) -> None:
    """Let `model` run packed: from now on each call needs `present`, a (batch, tokens) mask of bool."""
    name, parts = _ENCODERS[model.config.model_type]
    encoder = getattr(model.base_model, name)
    heads = model.config.num_attention_heads
    layers = [_Layer(layer, parts, heads) for layer in encoder.layer]
    setattr(model.base_model, name, _Encoder(layers))


def script(model: Any) -> None:
    """Let the layers of a packed model run without Python's lock, so that threads do not wait for each other.

    TorchScript is deprecated, but what shall replace it compiles for seconds each time. The layers stay as
    they are where there is no TorchScript, or where it does not understand one of their parts.
    """
    encoder = getattr(model.base_model, _ENCODERS[model.config.model_type][0])
    # Nothing here gets faster by being compiled for the shapes that come first, and it takes memory.
    torch._C._jit_set_profiling_mode(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            encoder.layers = torch.jit.script(encoder.layers)
    except Exception as error:
        logger.info("the layers of the model stay in Python: %s", " ".join(str(error).split()))


class _Encoder(torch.nn.Module):  # type: ignore[misc]
    """Takes the place of an encoder of transformers."""

    def __init__(self, layers: Sequence["_Layer"]) -> None:
        super().__init__()
        self.layers = _Layers(layers)

    def forward(self, hidden_states: torch.Tensor, *, present: torch.Tensor, **options: Any) -> Any:
        """Return the last hidden states, (batch, tokens, width) as the first; what was padding is zero."""
        row = hidden_states[present]
        lengths = present.sum(dim=1).tolist()
        count = len(row)
        spare = -count % _STEP if count > _LONG else 0
        if spare:
            # They attend to each other and to nothing else.
            row = pad(row, (0, 0, 0, spare))
            lengths.append(spare)
        row = self.layers(row, lengths)
        batch = torch.zeros_like(hidden_states)
        batch[present] = row[:count]
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=batch)


class _Layers(torch.nn.Module):  # type: ignore[misc]
    """The layers of an encoder. This and what it calls keeps to what TorchScript understands."""

    def __init__(self, layers: Sequence["_Layer"]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, row: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Return a row of the same shape, (tokens, width), of sequences of these `lengths`."""
        for layer in self.layers:
            row = layer(row, lengths)
        return row


class _Layer(torch.nn.Module):  # type: ignore[misc]
    """One layer of BERT's kind (Devlin et al. 2019), with the modules of the layer that it replaces."""

    def __init__(self, layer: torch.nn.Module, parts: Mapping[str, str], heads: int) -> None:
        super().__init__()
        part = {name: layer.get_submodule(path) for name, path in parts.items()}
        self._heads = heads
        self.query_key_value = _joined([part["query"], part["key"], part["value"]])
        self.attended = LinearPlus(part["attended"])
        self.attended_norm = part["attended_norm"]
        exact = isinstance(part["activation"], GELUActivation)
        self.widen = LinearGelu(part["widen"]) if exact else Sequential(part["widen"], part["activation"])
        self.narrow = LinearPlus(part["narrow"])
        self.norm = part["norm"]

    def forward(self, row: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Return a row of the same shape."""
        # (query, key or value; 1, heads, tokens, width of a head)
        split = self.query_key_value(row).view(len(row), 3, self._heads, -1).permute(1, 2, 0, 3).unsqueeze(1)
        attended = _attend(split[0], split[1], split[2], lengths).flatten(1)
        row = self.attended_norm(self.attended(attended, row))
        return self.norm(self.narrow(self.widen(row), row))


def _joined(linears: Sequence[torch.nn.Linear]) -> torch.nn.Linear:
    """Return one layer whose outputs are those of `linears`, one after the other."""
    weight = torch.cat([each.weight.detach() for each in linears])
    joined = torch.nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight = torch.nn.Parameter(weight, requires_grad=False)
    joined.bias = torch.nn.Parameter(torch.cat([each.bias.detach() for each in linears]), requires_grad=False)
    return joined


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Attend within each of the sequences; (1, heads, tokens, width) in, (tokens, heads, width) out."""
    if len(lengths) == 1:
        attended = scaled_dot_product_attention(query, key, value)
    else:
        parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2))  # noqa: B905
        attended = torch.cat([scaled_dot_product_attention(q, k, v) for q, k, v in parts], dim=2)
    return attended[0].transpose(0, 1)
