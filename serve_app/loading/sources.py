"""Turn a model's URI into a local folder. Only hf:// models are downloaded, and none is loaded here.

file:///models/… and pvc://… point into folders that images and volumes provide. On a machine without these
folders, MODEL_ENDPOINTS_MODELS and MODEL_ENDPOINTS_VOLUMES name the folders to use instead.
"""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from serve_app.contract import MODELS_VARIABLE

MODELS_FOLDER: Final = "/models"
VOLUMES_VARIABLE: Final = "MODEL_ENDPOINTS_VOLUMES"
VOLUMES_FOLDER: Final = "/volumes"

# Weights as safetensors, configuration and tokenizer. Never pickled weights or Python code.
HUB_FILES: Final = [
    *("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"),
    *("*.spm", "*.codes", "*.tiktoken", "*.bpe", "*.vocab", "*.tokenizer"),
]
# Folders and files of other programs, some as large as the weights.
NOT_HUB_FILES: Final = ["onnx/*", "openvino/*", "original/*", "coreml/*", "consolidated*.safetensors"]

LONGEST_REASON: Final = 300


class SourceError(Exception):
    """There is no model at the URI."""


def fetch(uri: str, revision: str = "") -> Path:
    """Return the local folder of the model at `uri`, downloading it if it is on a hub.

    Raises SourceError with a sentence that names the URI and what was looked for.
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in _SCHEMES:
        raise SourceError(f"{uri}: the scheme must be one of {', '.join(_SCHEMES)}")
    if ".." in PurePosixPath(rest).parts:
        raise SourceError(f"{uri}: the path must not contain '..'")
    folder = _SCHEMES[scheme](rest, revision)
    if not folder.is_dir():
        raise SourceError(f"{uri}: there is no folder {folder}")
    return folder


def commit_of(uri: str, folder: Path) -> str:
    """Return the commit of the hub whose files are in `folder`; empty for other sources.

    The hub's client names the folder of a snapshot by its commit.
    """
    return folder.name if uri.startswith("hf://") and folder.parent.name == "snapshots" else ""


def _from_file(rest: str, revision: str) -> Path:
    path = PurePosixPath(rest)
    stand_in = os.environ.get(MODELS_VARIABLE)
    if stand_in and path.is_relative_to(MODELS_FOLDER):
        return Path(stand_in) / path.relative_to(MODELS_FOLDER)
    return Path(path)


def _from_volume(rest: str, revision: str) -> Path:
    return Path(os.environ.get(VOLUMES_VARIABLE, VOLUMES_FOLDER)) / rest


def _from_package(rest: str, revision: str) -> Path:
    package, _, folder = rest.partition("/")
    # find_spec of a top-level name locates the package without running its code.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"package://{rest}: no Python package {package!r} is installed here")
    # A second slash would make the path absolute, which is outside of the package.
    return Path(next(iter(spec.submodule_search_locations))) / folder.lstrip("/")


def _from_hub(rest: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    at = f"hf://{rest}" + (f" at revision {revision}" if revision else "")
    try:
        return Path(
            snapshot_download(
                rest,
                revision=revision or None,
                allow_patterns=HUB_FILES,
                ignore_patterns=NOT_HUB_FILES,
            )
        )
    except LocalEntryNotFoundError as error:
        # Also raised where the hub answers with an error of its own, such as 429 or 503.
        cause = f": {_reason(error.__cause__)}" if isinstance(error.__cause__, Exception) else ""
        raise SourceError(
            f"{at}: the hub cannot be reached and the model is not cached here{cause}"
        ) from error
    except HfHubHTTPError as error:
        raise SourceError(f"{at}: the hub refused it: {_reason(error)}") from error
    except HFValidationError as error:
        raise SourceError(f"{at}: {error}") from error
    except Exception as error:
        # The hub's client does not wrap the errors of its HTTP library.
        raise SourceError(f"{at}: the download failed: {type(error).__name__}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the error's message in one line of bounded length."""
    return " ".join(str(error).split())[:LONGEST_REASON]


_SCHEMES: Final[dict[str, Callable[[str, str], Path]]] = {
    "hf": _from_hub,
    "file": _from_file,
    "pvc": _from_volume,
    "package": _from_package,
}
