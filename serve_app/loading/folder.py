"""What the files of a model's folder say before anything is loaded, and what is refused because of it."""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any, Final

import transformers

from serve_app.engine.base import ModelLoadError
from serve_app.text import first_few, quoted, shortened, words

_ADAPTERS: Final = ("adapter_config.json", "adapter_model.safetensors")


def read_json(path: Path, kind: type = dict) -> Any:
    """Return the JSON document at `path`; an empty one of `kind` if there is no file.

    Raises ModelLoadError if it is no JSON, or of another kind.
    """
    if not path.is_file():
        return kind()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} is not valid JSON: {words(error)}") from error
    if not isinstance(document, kind):
        wanted = "an object" if kind is dict else "a list"
        raise ModelLoadError(f"{path} must hold {wanted}; it holds {quoted(document)}")
    return document


def check_folder(folder: Path, auto_class: str) -> None:
    """Raise ModelLoadError if the folder is no model of safetensors that runs without code of its own.

    `auto_class` is the name of the class of transformers that will load it, such as "AutoModel".
    """
    _refuse_adapters(folder)
    if not any(folder.glob("*.safetensors")):
        raise ModelLoadError(f"{folder} has no *.safetensors file; other weight formats are not loaded")
    _require_shards(folder)
    _refuse_code(folder / "config.json", ("AutoConfig", "AutoModel", auto_class))
    _refuse_code(folder / "tokenizer_config.json", ("AutoTokenizer",))


def count_parameters(folder: Path) -> int:
    """Return the number of parameters that the headers of the folder's safetensors list; 0 if unreadable."""
    total = 0
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(size, path.stat().st_size)))
            total += sum(prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
            # What is wrong with the file, the loader says.
            return 0
    return total


def _refuse_adapters(folder: Path) -> None:
    for name in _ADAPTERS:
        if (folder / name).exists():
            base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
            of = f" of {quoted(base)}" if base else ""
            raise ModelLoadError(
                f"{folder} has {name}: adapters are not applied; merge the adapter{of} into its base model, "
                "and serve the folder of the merged model"
            )


def _require_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    files = read_json(index).get("weight_map") or {}
    names = sorted(set(map(str, files.values()))) if isinstance(files, dict) else []
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and not (folder / "model.safetensors").is_file():
        raise ModelLoadError(f"{folder} lacks {first_few(missing)}, which {index.name} names")


def _refuse_code(path: Path, parts: tuple[str, ...]) -> None:
    """Refuse a folder that needs its own code; what transformers has under the same name needs none."""
    stated = read_json(path).get("auto_map")
    if not stated:
        return
    if not isinstance(stated, dict):
        raise ModelLoadError(f"{path}: auto_map: got {quoted(stated)}; must be an object")
    for part in parts:
        value = stated.get(part)
        # A tokenizer states a slow and a fast class, of which one may be null.
        names = [each for each in (value if isinstance(value, list) else [value]) if each]
        for name in names:
            if not hasattr(transformers, str(name).rpartition(".")[2]):
                raise ModelLoadError(
                    f"{path}: auto_map names {shortened(str(name))} as {part}: the folder needs its own "
                    "code, which is not run; use a model whose architecture transformers has"
                )
