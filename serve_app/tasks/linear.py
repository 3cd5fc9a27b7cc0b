"""Linear layers that call oneDNN's kernels.

In float32 torch's own layer calls another library, and is slower where it was measured: docs/performance.md.
The kernels are faster still if the weights lie in the order in which they read them. That is a copy, which is
this process's alone, so it is for weights that no other process shares. torch has no public names for the
operators; its compiler uses them in frozen models (torch/_inductor/fx_passes/mkldnn_fusion.py).
"""

from typing import Any, Final

import torch

# For how many tokens the order is chosen; every other number works with it.
_TOKENS: Final = 256


class OneDnnLinear(torch.nn.Module):  # type: ignore[misc]
    """Computes what the torch.nn.Linear that it was made of computes."""

    def __init__(self, linear: torch.nn.Linear, *, ordered: bool) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _TOKENS) if ordered else weight
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return a tensor of shape (…, outputs) for one of shape (…, inputs)."""
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self._weight, self._bias, "none", [], ""
        )
        return outputs


def has_kernels(dtype: torch.dtype) -> bool:
    """Return whether this torch and this processor have kernels for `dtype`."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32


def use_kernels(model: Any, *, ordered: bool) -> None:
    """Replace the linear layers below `model`, and put their weights in order if that is wanted."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(module, name, OneDnnLinear(child, ordered=ordered))
