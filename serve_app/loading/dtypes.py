"""In which number format a model runs."""

import warnings
from typing import Any, Final

import torch

from serve_app.contract import Dtype

FLOAT32: Final = "float32"
INT8: Final = "int8"


def resolve_dtype(dtype: Dtype, device: torch.device, *, compared: bool) -> str:
    """Return the format that `dtype` stands for.

    `auto` is the fastest one that `device` has hardware for; on a processor, only if it is then compared.
    """
    if dtype != "auto":
        return dtype
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if not compared:
        return FLOAT32
    # Other processors compute bfloat16 by converting it, which is slower than float32.
    capabilities = torch.cpu.get_capabilities()
    return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else FLOAT32


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's format of that name; it has none for int8, whose layers are made of float32 ones."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def convert(model: Any, name: str) -> None:
    """Convert a float32 model in place; as int8 only the linear layers, their inputs call by call."""
    if name != INT8:
        model.to(torch_dtype(name))
        return
    quantization = torch.ao.quantization
    kinds = {torch.nn.Linear: quantization.per_channel_dynamic_qconfig}
    with warnings.catch_warnings():
        # torch announces its successor, a package of its own whose layers are fast only when compiled.
        warnings.simplefilter("ignore")
        quantization.quantize_dynamic(model, kinds, inplace=True)
