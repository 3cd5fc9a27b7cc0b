"""Read a folder of sentence-transformers as its files say, in its old and its new formats.

It holds an embedding model, or a ranker (CrossEncoder). What is not known here is refused by name: without it
the vectors or the scores would be other ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from serve_app.engine.base import ModelLoadError
from serve_app.loading.folder import read_json
from serve_app.loading.vector_modules import POOLING_MODES, Dense, Pooling, VectorModule, normalized
from serve_app.text import quoted, words

_OLD_MODES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Names of the transformer's settings in the versions of sentence-transformers.
_SETTINGS: Final = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
_VECTORS: Final = "sentence_embedding"
_LIBRARY_SETTINGS: Final = "config_sentence_transformers.json"
# What makes a score of a ranker's number: functions of torch.nn, by the name of the parameter for the same.
_ACTIVATIONS: Final = {"Identity": "none", "Sigmoid": "sigmoid"}


@dataclass(frozen=True)
class EmbeddingFolder:
    """What a folder says about its embeddings; the defaults are for folders that say nothing."""

    transformer: Path
    pooling: Pooling = field(default_factory=lambda: Pooling(("mean",)))
    # What is done to the vectors afterwards, in order, with the names of the modules.
    modules: tuple[tuple[str, VectorModule], ...] = ()
    max_tokens: int | None = None
    lowercase: bool = False
    # The text in front of each text, and whether its tokens take part in the pooling.
    prompt: str = ""
    include_prompt: bool = True

    @property
    def normalize(self) -> bool:
        return bool(self.modules) and self.modules[-1][0] == "Normalize"


def read_embedding_folder(folder: Path) -> EmbeddingFolder:
    """Return what modules.json and the files that it names say.

    Raises ModelLoadError with the file and the value that is not understood.
    """
    listed = folder / "modules.json"
    if not listed.is_file():
        return EmbeddingFolder(folder)
    found = [_listed_module(listed, each) for each in read_json(listed, list)]
    kinds = [kind for kind, _ in found]
    if not kinds or kinds[0] != "Transformer":
        first = quoted(kinds[0] if kinds else "nothing")
        raise ModelLoadError(f"{listed}: the first module is {first}; only Transformer can be served")
    if kinds.count("Pooling") != 1 or kinds[1] != "Pooling":
        raise ModelLoadError(f"{listed}: one Pooling must follow the Transformer; it has {', '.join(kinds)}")
    transformer = folder / found[0][1]
    pooling, include_prompt = _pooling(folder / found[1][1] / "config.json")
    read = replace(_with_settings(EmbeddingFolder(transformer)), pooling=pooling)
    modules = tuple(each for kind, path in found[2:] for each in _vector_module(listed, kind, folder / path))
    prompt = _prompt(folder / _LIBRARY_SETTINGS)
    return replace(read, modules=modules, prompt=prompt, include_prompt=include_prompt)


def _listed_module(listed: Path, module: Any) -> tuple[str, str]:
    """Return the last part of the module's type, and its path below the folder."""
    if not isinstance(module, Mapping) or not isinstance(module.get("type"), str):
        raise ModelLoadError(f"{listed}: a module must be an object with type and path; got {quoted(module)}")
    kind, path = module["type"], str(module.get("path", ""))
    if not kind.startswith("sentence_transformers."):
        raise ModelLoadError(f"{listed}: the module {quoted(kind)} needs code of its own, which is not run")
    if ".." in Path(path).parts or Path(path).is_absolute():
        raise ModelLoadError(f"{listed}: path: got {quoted(path)}; it must be below the folder")
    return kind.rpartition(".")[2], path


def _pooling(path: Path) -> tuple[Pooling, bool]:
    if not path.is_file():
        raise ModelLoadError(f"{path} is missing; it says how token vectors become one vector")
    config = read_json(path)
    stated = config.get("pooling_mode")
    if stated is None:
        # Old versions saved one member for each mode.
        unknown = [
            key
            for key, value in config.items()
            if key.startswith("pooling_mode_") and value and key not in _OLD_MODES
        ]
        stated = unknown or [mode for key, mode in _OLD_MODES.items() if config.get(key)] or ["mean"]
    modes = [stated] if isinstance(stated, str) else stated
    for mode in modes if isinstance(modes, list) and modes else [stated]:
        if mode not in POOLING_MODES:
            allowed = ", ".join(POOLING_MODES)
            raise ModelLoadError(
                f"{path}: pooling_mode: got {quoted(mode)}; must be {allowed} or a list of them"
            )
    return Pooling(tuple(modes)), bool(config.get("include_prompt", True))


def _with_settings(folder: EmbeddingFolder) -> EmbeddingFolder:
    """Add what the transformer's own settings say."""
    path = next(
        (folder.transformer / name for name in _SETTINGS if (folder.transformer / name).is_file()), None
    )
    if path is None:
        return folder
    config = read_json(path)
    limit = config.get("max_seq_length")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
        raise ModelLoadError(f"{path}: max_seq_length: got {quoted(limit)}; must be a number of tokens")
    task = config.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise ModelLoadError(f"{path}: transformer_task: got {quoted(task)}; must be feature-extraction")
    return replace(
        folder,
        max_tokens=limit if limit and limit > 0 else None,
        lowercase=bool(config.get("do_lower_case", False)),
    )


def _prompt(path: Path) -> str:
    """Return the prompt that is used by default."""
    config = read_json(path)
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if name is None:
        return ""
    if not isinstance(prompts, Mapping) or not isinstance(prompts.get(name), str):
        raise ModelLoadError(f"{path}: default_prompt_name: got {quoted(name)}; prompts has no such text")
    return str(prompts[name])


def _vector_module(listed: Path, kind: str, path: Path) -> Sequence[tuple[str, VectorModule]]:
    """Return the module behind the pooling with its name; nothing for one that only matters in training."""
    config = read_json(path / "config.json")
    for member in ("module_input_name", "module_output_name"):
        if (name := config.get(member)) not in (None, _VECTORS):
            raise ModelLoadError(f"{path}/config.json: {member}: got {quoted(name)}; must be {_VECTORS}")
    if kind == "Normalize":
        return [(kind, normalized)]
    if kind == "Dropout":
        return []
    if kind == "Dense":
        return [(kind, _dense(path, config))]
    if kind == "LayerNorm":
        weights = _weights(path, "norm.weight", "norm.bias")
        norm = partial(
            torch.nn.functional.layer_norm,
            normalized_shape=weights["norm.weight"].shape,
            weight=weights["norm.weight"],
            bias=weights["norm.bias"],
        )
        return [(kind, norm)]
    known = "Dense, Dropout, LayerNorm, Normalize"
    raise ModelLoadError(f"{listed}: the module {quoted(kind)} cannot be served; behind Pooling: {known}")


def _dense(path: Path, config: Mapping[str, Any]) -> Dense:
    residual = bool(config.get("use_residual", False))
    names = ["linear.weight", *(["linear.bias"] if config.get("bias", True) else [])]
    if residual and config.get("in_features") != config.get("out_features"):
        names.append("residual.weight")
    return Dense(_weights(path, *names), _activation(path, config), residual)


def _activation(path: Path, config: Mapping[str, Any]) -> Any:
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    kind = getattr(torch.nn, str(name).rpartition(".")[2], None)
    if not (
        str(name).startswith("torch.nn.") and isinstance(kind, type) and issubclass(kind, torch.nn.Module)
    ):
        raise ModelLoadError(
            f"{path}/config.json: activation_function: got {quoted(name)}; must be a class of torch.nn"
        )
    try:
        return kind()
    except TypeError as error:
        raise ModelLoadError(f"{path}/config.json: activation_function: {words(error)}") from error


def _weights(path: Path, *names: str) -> dict[str, torch.Tensor]:
    file = path / "model.safetensors"
    if not file.is_file():
        raise ModelLoadError(f"{file} is missing; other weight formats are not loaded")
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{file}: the weights are not readable safetensors: {words(error)}") from error
    lacking = [name for name in names if name not in weights]
    if lacking:
        raise ModelLoadError(f"{file} lacks {', '.join(lacking)}")
    return {name: weights[name].float() for name in names}


def check_ranker(folder: Path) -> None:
    """Raise ModelLoadError if the folder says that there is more to its scores than the model itself."""
    listed = folder / "modules.json"
    modules = read_json(listed, list)
    kinds = [str(each.get("type")) if isinstance(each, Mapping) else quoted(each) for each in modules]
    others = [kind for kind in kinds if kind.rpartition(".")[2] != "Transformer"]
    if others or len(kinds) > 1 or any(each.get("path") for each in modules):
        raise ModelLoadError(
            f"{listed}: got {', '.join(kinds)}; a ranker can be served if its one module is a Transformer in "
            "the folder itself"
        )
    prompt = read_json(folder / _LIBRARY_SETTINGS).get("default_prompt_name")
    if prompt is not None:
        raise ModelLoadError(
            f"{folder}/{_LIBRARY_SETTINGS}: default_prompt_name: got {quoted(prompt)}; a ranker's prompts "
            "are not applied"
        )


def ranker_function(folder: Path, config: Any) -> str | None:
    """Return what the folder states to make a score of the head's one number; None if it states nothing.

    Raises ModelLoadError for a function that is neither of "sigmoid" and "none".
    """
    places = (
        (_LIBRARY_SETTINGS, read_json(folder / _LIBRARY_SETTINGS).get("activation_fn")),
        ("config.json", (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")),
        ("config.json", getattr(config, "sbert_ce_default_activation_function", None)),
    )
    for file, stated in places:
        if stated is None:
            continue
        name = str(stated).rpartition(".")[2]
        if name not in _ACTIVATIONS:
            raise ModelLoadError(
                f"{folder}/{file}: the activation of the ranker: got {quoted(stated)}; must be "
                f"{' or '.join(_ACTIVATIONS)} of torch.nn"
            )
        return _ACTIVATIONS[name]
    return None
