"""Linear layers that call oneDNN's kernels.

In float32, torch's own layer calls another library. On AMD it was slower wherever it was measured; on
Intel it is as fast, and faster for a single token (docs/benchmarks.md). oneDNN's kernels gain by
prepacked weights: a copy of the weights in the order in which the kernels read them.

torch has no public names for these operators. Its compiler calls them in frozen models
(torch/_inductor/fx_passes/mkldnn_fusion.py). `from_prepacked` calls what compiled models call
(torch/csrc/inductor/aoti_torch/c/shim.h).
"""

import ctypes
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.functional import gelu
from transformers.pytorch_utils import Conv1D

from serve_app.encoders.torchscript import compiled

# `from_prepacked` calls a C function whose arguments are no public contract, so that another version may take
# others: the minor versions of torch with which it was tested.
_TESTED: Final = ("2.15",)

# The weights are prepacked for this number of tokens; every other number works too.
_TOKENS: Final = 256

# Up to so many tokens, each number has kernels of its own: most steps of generation are there.
_FEW: Final = 64
# Beyond them, so many numbers between a power of two and its double have. Less than a sixteenth of the work
# is for nothing then, or less than eight tokens.
_PER_DOUBLING: Final = 16
_LEAST_STEP: Final = 8


class LinearGelu(torch.nn.Module):  # type: ignore[misc]
    """A linear layer and GELU in its exact form (Hendrycks and Gimpel 2016)."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(…, inputs) in, (…, outputs) out."""
        return gelu(self.linear(inputs))


class LinearPlus(torch.nn.Module):  # type: ignore[misc]
    """A linear layer whose outputs are added to others."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, inputs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """(…, inputs) and (…, outputs) in, (…, outputs) out."""
        outputs: torch.Tensor = self.linear(inputs) + others
        return outputs


class OneDnnLayer(torch.nn.Module):  # type: ignore[misc]
    """A linear layer with prepacked weights."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        # As a buffer, so that a traced graph can hold it.
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _TOKENS)
        self.register_buffer("weight", packed, persistent=False)
        self.bias = linear.bias


# A traced graph can hold no empty list.
@compiled
def _linear(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, after: str
) -> torch.Tensor:
    # The last argument is the approximation of GELU.
    outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, after, [], "none")
    return outputs


class OneDnnLinear(OneDnnLayer):
    """Computes the torch.nn.Linear that it was made of, then the activation `after`: "gelu" or "none"."""

    def __init__(self, linear: torch.nn.Linear, after: str = "none") -> None:
        super().__init__(linear)
        self._after = after

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = _linear(inputs, self.weight, self.bias, self._after)
        return outputs


class OneDnnLinearPlus(OneDnnLayer):
    """Computes the `LinearPlus` that it was made of."""

    def forward(self, inputs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, others, self.weight, self.bias, "add"
        )
        return outputs


def padded_tokens(count: int) -> int:
    """Return up to how many tokens to fill up `count` of them.

    oneDNN compiles kernels for each number of tokens anew: milliseconds for a layer, and up to a mebibyte.
    """
    if count <= _FEW:
        return count
    power_below = 1 << (count - 1).bit_length() - 1
    step = max(_LEAST_STEP, power_below // _PER_DOUBLING)
    return -(-count // step) * step


def has_kernels(dtype: torch.dtype) -> bool:
    """Return whether this torch and this CPU have kernels for `dtype`."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32


def use_kernels(model: Any) -> None:
    """Replace the linear layers below `model`."""
    for name, child in list(model.named_children()):
        replacement = _with_kernels(child)
        if replacement is None:
            use_kernels(child)
        else:
            setattr(model, name, replacement)


def _with_kernels(layer: torch.nn.Module) -> OneDnnLayer | None:
    if type(layer) is torch.nn.Linear:
        return OneDnnLinear(layer)
    if type(layer) is Conv1D:
        return OneDnnLinear(_as_linear(layer))
    if isinstance(layer, LinearGelu):
        return OneDnnLinear(layer.linear, "gelu")
    return OneDnnLinearPlus(layer.linear) if isinstance(layer, LinearPlus) else None


def _as_linear(layer: Any) -> torch.nn.Linear:
    """Return GPT-2's kind of linear layer, whose weight is (inputs, outputs), as one of torch."""
    inputs, outputs = layer.weight.shape
    linear = torch.nn.Linear(inputs, outputs, device="meta")
    linear.weight = torch.nn.Parameter(layer.weight.detach().t().contiguous(), requires_grad=False)
    linear.bias = layer.bias
    return linear


def can_share_prepacked() -> bool:
    """Return whether `from_prepacked` was tested with this torch."""
    return ".".join(torch.__version__.split(".")[:2]) in _TESTED


def prepacked_buffer(weight: torch.Tensor) -> tuple[int, int]:
    """Return address and size in bytes of a prepacked weight."""
    return torch.ops.mkldnn.data_ptr(weight), torch.ops.mkldnn._nbytes(weight)


def from_prepacked(address: int, like: torch.Tensor) -> torch.Tensor:
    """Return a prepacked weight in the memory at `address`, which is laid out like the weight `like`.

    The memory must outlive the weight. Raises OSError or AttributeError where torch cannot do this.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / "libtorch_cpu.so"))
    take = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr
    rows, columns = like.shape
    order = bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(like).tolist())
    handle = ctypes.c_void_p()
    pair = ctypes.c_int64 * 2
    failed = library.aoti_torch_create_tensor_from_blob_v2(
        ctypes.c_void_p(address),
        ctypes.c_int64(2),
        pair(rows, columns),
        pair(columns, 1),
        ctypes.c_int64(0),
        getattr(library, f"aoti_torch_dtype_{str(like.dtype).removeprefix('torch.')}")(),
        library.aoti_torch_device_type_cpu(),
        0,
        ctypes.byref(handle),
        library.aoti_torch_layout__mkldnn(),
        (ctypes.c_uint8 * len(order)).from_buffer_copy(order),
        ctypes.c_int64(len(order)),
    )
    if failed:
        raise OSError("torch makes no tensor of memory that is there already")
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    weight: torch.Tensor = take(capsule(handle, None, None))
    return weight
