"""Whether the weights in a folder are those that the model has: none missing, none left over."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any, Final

from serve_app.contract import Task
from serve_app.engine.base import ModelLoadError
from serve_app.text import first_few, quoted

# Buffers that older versions of transformers saved and that are computed now.
_BUFFERS: Final = re.compile(
    r"\.(position_ids|token_type_ids|inv_freq|masked_bias|num_batches_tracked)$|\.(attn|attention)\.bias$"
)
_POOLER: Final = re.compile(r"(^|\.)pooler\.")


def check_weights(folder: Path, task: Task, model: Any, info: dict[str, Any]) -> None:
    """Raise ModelLoadError if weights are missing, or left over below the base model.

    `info` is what `from_pretrained` returns with `output_loading_info`. transformers fills what is missing
    with random numbers, and drops what is left over.
    """
    missing = sorted(info["missing_keys"]) + sorted(str(key[0]) for key in info["mismatched_keys"])
    if task is Task.FEATURE_EXTRACTION and missing and all(map(_POOLER.search, missing)):
        # No pooling uses this layer. Weights that are random would also differ between replicas.
        model.base_model.pooler = None
        missing = []
    if missing:
        raise ModelLoadError(
            f"{folder} was not trained for {task}: its weights lack {first_few(missing)}; "
            "correct spec.model.task or the folder"
        )
    left_over = [key for key in sorted(info["unexpected_keys"]) if _belongs_to_base(key, model)]
    if left_over:
        raise ModelLoadError(
            f"{folder} has weights that {type(model).__name__} has no place for: {first_few(left_over)}; "
            "without them its answers would be those of another model"
        )
    _check_positions(folder, model)


def _belongs_to_base(key: str, model: Any) -> bool:
    """Return whether a weight that was not loaded is one of the base model and not of a head."""
    if _BUFFERS.search(key) or _POOLER.search(key):
        return False
    prefix = f"{model.base_model_prefix}." if model.base_model_prefix else ""
    if prefix and key.startswith(prefix):
        return True
    children = {name for name, _ in model.base_model.named_children()}
    return model.base_model is model and key.partition(".")[0] in children


def _check_positions(folder: Path, model: Any) -> None:
    """Refuse a kind of positions that this version of the model's code does not know."""
    stated = getattr(model.config, "position_embedding_type", None)
    if stated in (None, "absolute"):
        return
    if "position_embedding_type" not in inspect.getsource(sys.modules[type(model.base_model).__module__]):
        raise ModelLoadError(
            f"{folder}/config.json: position_embedding_type: got {quoted(stated)}; "
            f"{type(model).__name__} has absolute positions only"
        )
