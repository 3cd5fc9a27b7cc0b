"""The folders that URIs without a download mean.

file:///models/… and pvc://… point into folders that images and volumes provide. On a machine without these
folders, MODEL_ENDPOINTS_MODELS and MODEL_ENDPOINTS_VOLUMES name the folders to use instead.
"""

import importlib.util
import os
from pathlib import Path, PurePosixPath
from typing import Final

from serve_app.contract import MODELS_VARIABLE
from serve_app.loading.sources.errors import SourceError

MODELS_FOLDER: Final = "/models"
VOLUMES_VARIABLE: Final = "MODEL_ENDPOINTS_VOLUMES"
VOLUMES_FOLDER: Final = "/volumes"


def from_file(rest: str) -> Path:
    path = PurePosixPath(rest)
    if path.is_relative_to(MODELS_FOLDER):
        return _models() / path.relative_to(MODELS_FOLDER)
    return Path(path)


def from_volume(rest: str) -> Path:
    return _volumes() / rest


def from_package(rest: str) -> Path:
    package, _, folder = rest.partition("/")
    # find_spec of a top-level name locates the package without running its code.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"package://{rest}: no Python package {package!r} is installed here")
    # A second slash would make the path absolute, which is outside of the package.
    return Path(next(iter(spec.submodule_search_locations))) / folder.lstrip("/")


def folder_of_rule(rule: str) -> Path | None:
    """Return the folder below which a rule of `sources.allow` lets models be; None if it is about others.

    The places of models and volumes may be links, because images and volumes provide them. What is below them
    may not, because somebody else may have made it.
    """
    scheme, _, rest = rule.partition("://")
    if scheme == "pvc":
        return _real_root(from_volume(rest))
    return _real_root(from_file(rest or "/")) if scheme == "file" else None


def _real_root(folder: Path) -> Path:
    for root in (_models(), _volumes()):
        if folder.is_relative_to(root):
            return Path(os.path.realpath(root)) / folder.relative_to(root)
    return folder


def _models() -> Path:
    return Path(os.environ.get(MODELS_VARIABLE) or MODELS_FOLDER)


def _volumes() -> Path:
    return Path(os.environ.get(VOLUMES_VARIABLE, VOLUMES_FOLDER))
