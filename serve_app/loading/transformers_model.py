"""Load a transformers model and its tokenizer from a folder, refuse what is not right for the task, run it.

Only safetensors are read, and no code from the folder is run. Everything that can be wrong with a folder
becomes one sentence in a ModelLoadError.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from safetensors import SafetensorError

from serve_app.contract import Task
from serve_app.encoders.cpu_threads import granted_threads
from serve_app.engine.base import EncodedSequence, InputLimit, ModelLoadError
from serve_app.loading.dtypes import torch_dtype
from serve_app.loading.tokenizer import Tokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# Tokenizers of models without a fixed context report a length of this order of magnitude.
_NO_LIMIT: Final = 10**9


@dataclass(frozen=True)
class TransformersModel:
    """A model in evaluation mode on its device, with its tokenizer."""

    model: Any
    tokenizer: Tokenizer
    device: torch.device
    # The dtype of the weights. If it is int8, only the linear layers have it.
    dtype: str
    # CPU threads that the replica may use.
    threads: int
    # Whether the model runs without padding.
    unpadded: bool = False

    @property
    def hf_tokenizer(self) -> Any:
        """The tokenizer of transformers itself."""
        return self.tokenizer.hf_tokenizer

    @cached_property
    def max_tokens(self) -> int:
        """The lowest limit that the model's configuration and the tokenizer state."""
        config = self.model.config
        stated = [
            self._positions,
            getattr(config, "n_positions", None),
            getattr(self.hf_tokenizer, "model_max_length", None),
        ]
        return min(int(limit) for limit in (*stated, _NO_LIMIT) if limit)

    @property
    def _positions(self) -> int | None:
        positions: int | None = getattr(self.model.config, "max_position_embeddings", None)
        # RoBERTa and models like it number the first position padding_idx + 1.
        embeddings = getattr(self.model.base_model, "embeddings", None)
        first = getattr(embeddings, "padding_idx", None)
        return positions - first - 1 if positions and first is not None else positions

    @property
    def description(self) -> dict[str, Any]:
        return {
            "architecture": type(self.model).__name__,
            "dtype": self.dtype,
            "device": str(self.device),
        }

    def encode(self, text: str, limit: InputLimit, pair: str | None = None) -> dict[str, list[int]]:
        """Return the tokenizer's lists for `text`, within `limit`. Of a pair, the first text is truncated."""
        return self.tokenizer.encode(text, limit, pair)

    def collate(self, batch: Sequence[EncodedSequence], side: str = "right") -> dict[str, torch.Tensor]:
        """Return tensors of shape (batch, longest), padded on `side`, on the model's device."""
        tensors = {}
        for name in batch[0].features:
            padding = self.hf_tokenizer.pad_token_id if name == "input_ids" else 0
            rows = [torch.tensor(encoded.features[name]) for encoded in batch]
            padded = torch.nn.utils.rnn.pad_sequence(
                rows, batch_first=True, padding_value=padding, padding_side=side
            )
            tensors[name] = padded.to(self.device)
        return tensors

    def run(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Return the model's output for the tensors of `collate`."""
        if not self.unpadded:
            return self.model(**tensors)
        others = {name: tensor for name, tensor in tensors.items() if name != "attention_mask"}
        return self.model(**others, attention_mask_2d=tensors["attention_mask"].bool())


def this_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(auto_class: Any, folder: Path, dtype: str, *, task: Task) -> TransformersModel:
    """Return the model of `auto_class` in `folder`, with weights of `dtype`.

    Raises ModelLoadError if files are missing, if weights are unreadable, or if the weights lack layers that
    the task needs. transformers would fill such layers with random numbers.
    """
    if not any(folder.glob("*.safetensors")):
        raise ModelLoadError(f"{folder} has no *.safetensors file; other weight formats are not loaded")
    threads = granted_threads()
    # OpenMP threads spin only while there are no more of them than cores. The threads for the forward passes
    # are started later, and must be the only ones.
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
        # Whatever exception a folder causes in transformers, the folder is at fault.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelLoadError(f"{folder} cannot be loaded for {task}: {reason}") from error
    _require_all_weights(folder, task, info)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return TransformersModel(model.eval().to(device), Tokenizer(tokenizer), device, dtype, threads)


def _require_all_weights(folder: Path, task: Task, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"]) + sorted(str(key[0]) for key in info["mismatched_keys"])
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ModelLoadError(
            f"{folder} was not trained for {task}: its weights lack {shown}; "
            "correct spec.model.task or the folder"
        )
