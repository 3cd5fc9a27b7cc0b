"""Load a transformers model and its tokenizer from a folder, refuse what is not right for the task, run it.

Only safetensors are read, and no code from the folder is run. Everything that can be wrong with a folder
becomes one sentence in a ModelLoadError.
"""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from safetensors import SafetensorError

from serve_app.contract import Task
from serve_app.decoders.steps import DecoderSteps
from serve_app.encoders.cpu_threads import granted_threads
from serve_app.engine.base import EncodedSequence, InputLimit, ModelLoadError
from serve_app.http.errors import InvalidInputError
from serve_app.loading.dtypes import torch_dtype
from serve_app.loading.folder import check_folder
from serve_app.loading.tokenizer import Cut, Tokenizer
from serve_app.loading.weights import check_weights
from serve_app.text import quoted, words

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# Tokenizers of models without a fixed context report a length of this order of magnitude.
NO_LIMIT: Final = 10**9

# Arguments of a model's forward that are lists with one number for each token.
_PER_TOKEN: Final = ("token_type_ids", "attention_mask")


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
    # Whether the model runs without padding, in layers of this project.
    unpadded: bool = False
    # What computes a causal model in steps, instead of `generate`.
    steps: DecoderSteps | None = None
    # Whether only sequences of one length may share a batch.
    equal_lengths: bool = False
    # A lower limit than the one that the model states.
    token_limit: int | None = None

    @property
    def hf_tokenizer(self) -> Any:
        """The tokenizer of transformers itself."""
        return self.tokenizer.hf_tokenizer

    @cached_property
    def max_tokens(self) -> int:
        """The lowest limit that the model's configuration, the tokenizer and the cache of steps state."""
        config = self.model.config
        stated = [
            self.token_limit,
            self.steps.capacity if self.steps is not None else None,
            self._positions,
            getattr(config, "n_positions", None),
            getattr(self.hf_tokenizer, "model_max_length", None),
        ]
        # Some say -1 where there is no limit.
        return min(int(limit) for limit in (*stated, NO_LIMIT) if limit and limit > 0)

    @property
    def _positions(self) -> int | None:
        positions: int | None = getattr(self.model.config, "max_position_embeddings", None)
        # RoBERTa and models like it number the first position padding_idx + 1.
        embeddings = getattr(self.model.base_model, "embeddings", None)
        first = getattr(embeddings, "padding_idx", None)
        return positions - first - 1 if positions and first is not None else positions

    @cached_property
    def _inputs(self) -> frozenset[str]:
        """What the model takes for each token, besides the ids."""
        taken = inspect.signature(self.model.forward).parameters
        return frozenset(name for name in _PER_TOKEN if name in taken)

    @cached_property
    def vocabulary(self) -> int:
        """The number of tokens that the model has an embedding for."""
        try:
            return int(self.model.get_input_embeddings().num_embeddings)
        except (AttributeError, NotImplementedError):
            # Models of characters hash them.
            return NO_LIMIT

    @cached_property
    def _segments(self) -> int:
        """The number of values that token_type_ids may have."""
        return int(getattr(self.model.config, "type_vocab_size", None) or NO_LIMIT)

    @property
    def description(self) -> dict[str, Any]:
        return {
            "architecture": type(self.model).__name__,
            "dtype": self.dtype,
            "device": str(self.device),
        }

    def encode(
        self, text: str, limit: InputLimit, pair: str | None = None, cut: Cut = "first"
    ) -> dict[str, list[int]]:
        """Return the model's inputs for `text`, within `limit`; `cut` names the text of a pair to truncate.

        Raises InvalidInputError for a text that becomes no token, or one with a token that the model does not
        know.
        """
        found = self.tokenizer.encode(text, limit, pair, cut)
        if not found["input_ids"]:
            raise InvalidInputError(f"{quoted(text)} becomes no token")
        return self.features(found)

    def features(self, found: Mapping[str, list[int]]) -> dict[str, list[int]]:
        """Return the model's inputs for the tokenizer's lists, of one token or more.

        Raises InvalidInputError for a token that the model does not know.
        """
        ids = found["input_ids"]
        if max(ids) >= self.vocabulary:
            token = self.hf_tokenizer.convert_ids_to_tokens(max(ids))
            raise InvalidInputError(
                f"the text has the token {quoted(token)}, number {max(ids)}; the model knows those below "
                f"{self.vocabulary}"
            )
        features = {"input_ids": ids}
        if "token_type_ids" in found and "token_type_ids" in self._inputs:
            types = found["token_type_ids"]
            features["token_type_ids"] = types if max(types) < self._segments else [0] * len(types)
        if self.unpadded or "attention_mask" in self._inputs:
            features["attention_mask"] = [1] * len(ids)
        return features

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

    Raises ModelLoadError if files are missing, if weights are unreadable, if the weights lack layers that
    the task needs, or if some have no place in the model.
    """
    check_folder(folder, auto_class.__name__)
    threads = granted_threads()
    # OpenMP threads spin only while there are no more of them than cores. The threads for the forward passes
    # are started later, and must be the only ones.
    torch.set_num_threads(1)
    device = this_device()
    try:
        tokenizer = _load_tokenizer(folder)
        model, info = auto_class.from_pretrained(
            folder,
            dtype=torch_dtype(dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model.eval().to(device)
    except SafetensorError as error:
        raise ModelLoadError(f"{folder}: the weights are not readable safetensors: {error}") from error
    except Exception as error:
        # Whatever exception a folder causes in transformers, the folder is at fault.
        raise ModelLoadError(f"{folder} cannot be loaded for {task}: {words(error)}") from error
    check_weights(folder, task, model, info)
    # The code here reads outputs by name.
    model.config.return_dict = True
    _set_padding(model, tokenizer, task)
    return TransformersModel(model, Tokenizer(tokenizer), device, dtype, threads)


def _load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of transformers; raise ImportError if it needs a package that is not there."""
    with warnings.catch_warnings():
        # That of Marian recommends a package which it never calls.
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    # That of BERTweet leaves emojis as they are, which the model was not trained with.
    if getattr(tokenizer, "normalization", False) and getattr(tokenizer, "demojizer", "") is None:
        raise ImportError(
            f"{type(tokenizer).__name__} writes emojis as words by the package emoji, which is not installed"
        )
    return tokenizer


def _set_padding(model: Any, tokenizer: Any, task: Task) -> None:
    """Give the tokenizer a padding token if it has none, and let the model know which one it is."""
    if tokenizer.pad_token_id is None:
        stated = getattr(model.config, "pad_token_id", None)
        # The model never looks at padding; a batch where it did would differ from its texts alone.
        number = stated if isinstance(stated, int) and stated >= 0 else 0
        known = tokenizer.eos_token or tokenizer.unk_token
        tokenizer.pad_token = known or tokenizer.convert_ids_to_tokens(number)
    if task in (Task.TEXT_CLASSIFICATION, Task.TEXT_RANKING, Task.ZERO_SHOT_CLASSIFICATION):
        # Causal models score the last token that is not padding by their own configuration.
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
