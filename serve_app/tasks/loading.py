"""Load a transformers model and its tokenizer from a folder, and refuse what is not right for the task.

Only safetensors are read and no code from the folder is run. Everything that can be wrong with a
folder becomes one sentence of ModelLoadError.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from serve_app.contract import Task
from serve_app.encoders.cpu_threads import granted_threads
from serve_app.engine.base import ModelLoadError
from serve_app.tasks.number_formats import torch_dtype
from serve_app.tasks.pretrained import Pretrained
from serve_app.tasks.tokenizing import Tokenizing

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def this_device() -> torch.device:
    """Return the device on which models of this process run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(auto_class: Any, folder: Path, dtype: str, *, task: Task) -> Pretrained:
    """Return the model of `auto_class` in `folder`, in the number format `dtype`.

    Raises ModelLoadError if files are missing, weights are unreadable, or the weights lack layers
    that the task needs: transformers would fill those with random numbers.
    """
    if not any(folder.glob("*.safetensors")):
        raise ModelLoadError(f"{folder} has no *.safetensors file; other weight formats are not loaded")
    threads = granted_threads()
    # OpenMP lets threads wait actively for each other only as long as no more of them have been made than
    # there are cores. Those for the forward passes come later and shall be the only ones.
    torch.set_num_threads(1)
    device = this_device()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model, info = auto_class.from_pretrained(
            folder,
            dtype=torch_dtype(dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise ModelLoadError(f"{folder}: the weights are not readable safetensors: {error}") from error
    except Exception as error:
        # Whatever transformers stumbles over in a foreign folder is a fact about that folder.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelLoadError(f"{folder} cannot be loaded for {task}: {reason}") from error
    _require_all_weights(folder, task, info)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return Pretrained(model.eval().to(device), Tokenizing(tokenizer), device, dtype, threads)


def _require_all_weights(folder: Path, task: Task, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"]) + sorted(str(key[0]) for key in info["mismatched_keys"])
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ModelLoadError(
            f"{folder} was not trained for {task}: its weights lack {shown}; "
            "correct spec.model.task or the folder"
        )
