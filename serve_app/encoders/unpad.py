"""Run an encoder without padding: the tokens of all sequences in one tensor, attention within each sequence.

Embeddings and heads still get the padded batch. Only the encoder's layers, where the time goes, get the
unpadded tokens. The layers run here and not in transformers' code, which spends a third of the time in Python
for a short text and a small model.
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

from serve_app.encoders.onednn import LinearGelu, LinearPlus, padded_tokens

# Paths of a layer's modules, by their names in `_Layer`.
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

# Model types with such layers: the name of the module that holds the layers, and the paths in each layer.
# All of them add positions to the embeddings; a model that adds them in its layers needs the padded batch.
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


def can_unpad(model: Any) -> bool:
    """Return whether `model` is a transformers model that can run without padding."""
    return model.config.model_type in _ENCODERS and not getattr(model.config, "is_decoder", False)


def unpad(model: Any, *, fills: bool = False) -> None:
    """Make `model` run without padding: each call then needs `attention_mask_2d`, (batch, tokens) of bool.

    With `fills`, batches are filled up to few numbers of tokens, for oneDNN's layers. transformers would
    expand an argument called `attention_mask` before it reaches the layers.
    """
    name, paths = _ENCODERS[model.config.model_type]
    encoder = getattr(model.base_model, name)
    heads = model.config.num_attention_heads
    layers = [_Layer(layer, paths, heads) for layer in encoder.layer]
    setattr(model.base_model, name, _Encoder(layers, fills=fills))


def script(model: Any) -> None:
    """Compile the layers of an unpadded model with TorchScript, so that they run without the GIL.

    TorchScript is deprecated, but its successor compiles for seconds each time. The layers stay in Python
    where torch has no TorchScript, or where it cannot compile one of their modules.
    """
    encoder = getattr(model.base_model, _ENCODERS[model.config.model_type][0])
    # Specialising for the first shapes makes nothing here faster, and takes memory.
    torch._C._jit_set_profiling_mode(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            encoder.layers = torch.jit.script(encoder.layers)
    except Exception as error:
        logger.info("the layers of the model stay in Python: %s", " ".join(str(error).split()))


class _Encoder(torch.nn.Module):  # type: ignore[misc]
    """Takes the place of an encoder of transformers."""

    def __init__(self, layers: Sequence["_Layer"], *, fills: bool) -> None:
        super().__init__()
        self.layers = _Layers(layers)
        self._fills = fills

    def forward(self, hidden_states: torch.Tensor, *, attention_mask_2d: torch.Tensor, **options: Any) -> Any:
        """Return the last hidden states, (batch, tokens, width) like the first; padding becomes zero."""
        unpadded = hidden_states[attention_mask_2d]
        seqlens = attention_mask_2d.sum(dim=1).tolist()
        count = len(unpadded)
        filling = padded_tokens(count) - count if self._fills else 0
        if filling:
            unpadded = pad(unpadded, (0, 0, 0, filling))
        unpadded = self.layers(unpadded, seqlens)
        batch = torch.zeros_like(hidden_states)
        batch[attention_mask_2d] = unpadded[:count]
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=batch)


class _Layers(torch.nn.Module):  # type: ignore[misc]
    """The layers of an encoder. TorchScript compiles this class and what it calls."""

    def __init__(self, layers: Sequence["_Layer"]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, hidden_states: torch.Tensor, seqlens: list[int]) -> torch.Tensor:
        """Return the next hidden states, (tokens, width); `seqlens` has the length of each sequence.

        Tokens beyond the last sequence attend to nothing. The lengths are not cumulative, unlike those that
        flash attention calls cu_seqlens.
        """
        for layer in self.layers:
            hidden_states = layer(hidden_states, seqlens)
        return hidden_states


class _Layer(torch.nn.Module):  # type: ignore[misc]
    """One layer of BERT's kind (Devlin et al. 2019), made of the modules of the layer that it replaces."""

    def __init__(self, layer: torch.nn.Module, paths: Mapping[str, str], heads: int) -> None:
        super().__init__()
        part = {name: layer.get_submodule(path) for name, path in paths.items()}
        self._heads = heads
        self.query_key_value = _joined([part["query"], part["key"], part["value"]])
        self.attended = LinearPlus(part["attended"])
        self.attended_norm = part["attended_norm"]
        exact = isinstance(part["activation"], GELUActivation)
        self.widen = LinearGelu(part["widen"]) if exact else Sequential(part["widen"], part["activation"])
        self.narrow = LinearPlus(part["narrow"])
        self.norm = part["norm"]

    def forward(self, hidden_states: torch.Tensor, seqlens: list[int]) -> torch.Tensor:
        # (query, key or value; 1, heads, tokens, width of a head)
        qkv = self.query_key_value(hidden_states).view(len(hidden_states), 3, self._heads, -1)
        qkv = qkv.permute(1, 2, 0, 3).unsqueeze(1)
        attended = _attend(qkv[0], qkv[1], qkv[2], seqlens).flatten(1)
        hidden_states = self.attended_norm(self.attended(attended, hidden_states))
        return self.norm(self.narrow(self.widen(hidden_states), hidden_states))


def _joined(linears: Sequence[torch.nn.Linear]) -> torch.nn.Linear:
    """Return one layer whose outputs are those of `linears`, one after the other."""
    weight = torch.cat([each.weight.detach() for each in linears])
    joined = torch.nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight = torch.nn.Parameter(weight, requires_grad=False)
    joined.bias = torch.nn.Parameter(torch.cat([each.bias.detach() for each in linears]), requires_grad=False)
    return joined


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seqlens: list[int]) -> torch.Tensor:
    """Attend within each of the sequences; (1, heads, tokens, width) in, (tokens, heads, width) out.

    Tokens beyond the last sequence get zeros.
    """
    tokens = sum(seqlens)
    missing = query.shape[2] - tokens
    if missing > 0:
        query, key, value = query[:, :, :tokens], key[:, :, :tokens], value[:, :, :tokens]
    if len(seqlens) == 1:
        attended = scaled_dot_product_attention(query, key, value)
    else:
        parts = zip(query.split(seqlens, 2), key.split(seqlens, 2), value.split(seqlens, 2))  # noqa: B905
        attended = torch.cat([scaled_dot_product_attention(q, k, v) for q, k, v in parts], dim=2)
    attended = attended[0].transpose(0, 1)
    return pad(attended, [0, 0, 0, 0, 0, missing]) if missing > 0 else attended
