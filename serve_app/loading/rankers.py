"""What a folder says about a ranker, as sentence-transformers' CrossEncoder reads it.

CrossEncoder states what makes a score of the head's number in config_sentence_transformers.json, in older
versions in config.json. What is not known here is refused by name: without it the scores would be others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from serve_app.engine.base import ModelLoadError
from serve_app.loading.folder import read_json
from serve_app.text import quoted

_SETTINGS: Final = "config_sentence_transformers.json"
# Functions of torch.nn, by the name of the parameter that asks for the same.
_ACTIVATIONS: Final = {"Identity": "none", "Sigmoid": "sigmoid"}


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
    prompt = read_json(folder / _SETTINGS).get("default_prompt_name")
    if prompt is not None:
        raise ModelLoadError(
            f"{folder}/{_SETTINGS}: default_prompt_name: got {quoted(prompt)}; prompts of rankers are not "
            "applied"
        )


def ranker_function(folder: Path, config: Any) -> str | None:
    """Return what the folder states to make a score of the head's one number; None if it states nothing.

    Raises ModelLoadError for a function that is neither of "sigmoid" and "none".
    """
    places = (
        (_SETTINGS, read_json(folder / _SETTINGS).get("activation_fn")),
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
