"""Linear layers whose weights lie in the order in which oneDNN's kernels read them.

torch's own layer hands the weights over as they are stored, and they are put in order anew in each call. That
is little work beside a large batch and nearly half of the time of a lone short text. The ordered copy belongs
to this process alone, so it is for weights that no other process shares. torch has no public names for
the two operators; its compiler uses them in frozen models (torch/_inductor/fx_passes/mkldnn_fusion.py).
"""

from typing import Any, Final

import torch

# For how many tokens the order is chosen; every other number works with it.
_TOKENS: Final = 256


class OrderedLinear(torch.nn.Module):  # type: ignore[misc]
    """Computes what the torch.nn.Linear that it was made of computes."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _TOKENS)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return a tensor of shape (…, outputs) for one of shape (…, inputs)."""
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self._weight, self._bias, "none", [], ""
        )
        return outputs


def can_order() -> bool:
    """Return whether this torch has the operators."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def order_weights(model: Any) -> None:
    """Replace the linear layers below `model`."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(module, name, OrderedLinear(child))
