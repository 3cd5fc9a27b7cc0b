"""Load a transformers model and its tokenizer from a folder, and refuse what is not right for the task.

Only safetensors are read and no code from the folder is run. Everything that can be wrong with a
folder becomes one sentence of ModelLoadError.
"""

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
import transformers
from safetensors import SafetensorError

from serve_app.batcher import Progress
from serve_app.contract import Dtype, Task
from serve_app.tasks.base import Encoded, InputLimit, ModelLoadError, TaskModel

# A batch of any size takes about the same time on an accelerator, and so does one that generates.
FULL_BATCHES: Final = 10**6

# Tokenizers of models without a fixed context report a length of this order.
_NO_LIMIT: Final = 10**9

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@dataclass(frozen=True)
class Pretrained:
    """A model in evaluation mode on its device, with its tokenizer."""

    model: Any
    tokenizer: Any
    device: torch.device

    @property
    def max_tokens(self) -> int:
        """Smallest of the limits that the model's configuration and the tokenizer state."""
        config = self.model.config
        stated = [
            self._positions,
            getattr(config, "n_positions", None),
            getattr(self.tokenizer, "model_max_length", None),
        ]
        return min(int(limit) for limit in (*stated, _NO_LIMIT) if limit)

    @property
    def _positions(self) -> int | None:
        positions: int | None = getattr(self.model.config, "max_position_embeddings", None)
        # RoBERTa and its kin number the first token padding_idx + 1.
        embeddings = getattr(self.model.base_model, "embeddings", None)
        first = getattr(embeddings, "padding_idx", None)
        return positions - first - 1 if positions and first is not None else positions

    @property
    def description(self) -> dict[str, Any]:
        """Number format, device and architecture."""
        return {
            "architecture": type(self.model).__name__,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.device),
        }

    def encode(self, text: str, limit: InputLimit, pair: str | None = None) -> dict[str, list[int]]:
        """Return the tokenizer's lists for `text`, within `limit`; of a pair, the first is cut."""
        encoded = self.tokenizer(text, pair)
        limit.check(len(encoded["input_ids"]))
        if len(encoded["input_ids"]) > limit.max_tokens:
            cut = "only_first" if pair is not None else True
            encoded = self.tokenizer(text, pair, truncation=cut, max_length=limit.max_tokens)
        return {name: list(values) for name, values in encoded.items()}

    def collate(self, batch: Sequence[Encoded], side: str = "right") -> dict[str, torch.Tensor]:
        """Return tensors of shape (batch, longest), padded on `side`, on the model's device."""
        tensors = {}
        for name in batch[0].features:
            padding = self.tokenizer.pad_token_id if name == "input_ids" else 0
            rows = [torch.tensor(encoded.features[name]) for encoded in batch]
            padded = torch.nn.utils.rnn.pad_sequence(
                rows, batch_first=True, padding_value=padding, padding_side=side
            )
            tensors[name] = padded.to(self.device)
        return tensors


class PretrainedTask(TaskModel):
    """A task whose model is one transformers auto class and whose texts are encoded one by one."""

    task: ClassVar[Task]
    auto_class: ClassVar[Any]

    def __init__(self, folder: Path, dtype: Dtype) -> None:
        self._pretrained = load(self.auto_class, folder, dtype, task=self.task)

    @property
    def max_tokens(self) -> int:
        return self._pretrained.max_tokens

    @property
    def description(self) -> Mapping[str, Any]:
        return self._pretrained.description

    @property
    def batch_overhead_tokens(self) -> int:
        on_processor = self._pretrained.device.type == "cpu"
        return super().batch_overhead_tokens if on_processor else FULL_BATCHES

    def encode(self, text: str, parameters: Any, limit: InputLimit) -> Sequence[Encoded]:
        return [Encoded(self._pretrained.encode(text, limit))]

    def forward(self, batch: Sequence[Encoded], progress: Progress) -> Sequence[Any]:
        with torch.inference_mode():
            return self.run(batch, progress)

    @abstractmethod
    def run(self, batch: Sequence[Encoded], progress: Progress) -> Sequence[Any]:
        """Return one raw output for each sequence of `batch`; torch records no gradients meanwhile."""

    def _logits(self, batch: Sequence[Encoded]) -> torch.Tensor:
        """Return the model's logits for a padded batch, as float32 on the processor."""
        logits: torch.Tensor = self._pretrained.model(**self._pretrained.collate(batch)).logits
        return logits.float().cpu()


def load(auto_class: Any, folder: Path, dtype: Dtype, *, task: Task) -> Pretrained:
    """Return the model of `auto_class` in `folder`.

    Raises ModelLoadError if files are missing, weights are unreadable, or the weights lack layers
    that the task needs: transformers would fill those with random numbers.
    """
    if not any(folder.glob("*.safetensors")):
        raise ModelLoadError(f"{folder} has no *.safetensors file; other weight formats are not loaded")
    _take_granted_threads()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model, info = auto_class.from_pretrained(
            folder,
            dtype=_torch_dtype(dtype, device),
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
    return Pretrained(model.eval().to(device), tokenizer, device)


def _take_granted_threads() -> None:
    """Use as many threads as Ray has granted; torch itself looks only while it is imported."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    if granted.isdecimal() and int(granted) > 0:
        torch.set_num_threads(int(granted))


def _require_all_weights(folder: Path, task: Task, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"]) + sorted(str(key[0]) for key in info["mismatched_keys"])
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ModelLoadError(
            f"{folder} was not trained for {task}: its weights lack {shown}; "
            "correct spec.model.task or the folder"
        )


def _torch_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """Return the number format; `auto` is float32 on a processor and half precision on CUDA."""
    if dtype != "auto":
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


class Ticker(transformers.StoppingCriteria):  # type: ignore[misc]
    """Reports each generated token, and ends a generation that nobody waits for."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return for each sequence whether it shall stop."""
        abandoned = not self._progress.tick()
        return torch.full((input_ids.shape[0],), abandoned, device=input_ids.device, dtype=torch.bool)
