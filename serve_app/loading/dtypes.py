"""The dtype in which a model runs, and int8, which no file of weights has."""

import warnings
from typing import Any, Final, get_args

import torch

from serve_app.contract import Dtype
from serve_app.engine.base import ModelLoadError

FLOAT32: Final = "float32"
INT8: Final = "int8"


def resolve_dtype(dtype: Dtype, device: torch.device, *, compared: bool) -> str:
    """Return the dtype that `dtype` stands for.

    `auto` is the fastest dtype for which `device` has hardware. On a CPU that is float32 unless the model is
    `compared` with float32 afterwards. Raises ModelLoadError for a name that is none of them.
    """
    known = get_args(Dtype)
    if dtype not in known:
        raise ModelLoadError(f"spec.model.dtype: got {dtype!r}; must be one of {', '.join(known)}")
    if dtype != "auto":
        return dtype
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if not compared:
        return FLOAT32
    # Other CPUs convert bfloat16 for each operation, which is slower than float32.
    capabilities = torch.cpu.get_capabilities()
    return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else FLOAT32


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's dtype of that name. int8 has none: its layers are made from float32 layers."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def quantize(model: Any) -> None:
    """Convert the linear layers of a float32 model to int8 in place, and their inputs at each call."""
    quantization = torch.ao.quantization
    kinds = {torch.nn.Linear: quantization.per_channel_dynamic_qconfig}
    with warnings.catch_warnings():
        # torch deprecates this for a separate package, whose layers are fast only when compiled.
        warnings.simplefilter("ignore")
        quantization.quantize_dynamic(model, kinds, inplace=True)
