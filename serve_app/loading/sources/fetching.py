"""Turn a model's URI into a local folder. Only hf:// models are downloaded, and none is loaded here."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from serve_app.loading.sources.allowed import allowing_rules, require_inside, require_no_secrets
from serve_app.loading.sources.errors import SourceError
from serve_app.loading.sources.folders import from_file, from_package, from_volume
from serve_app.loading.sources.hub import from_hub

_LOCAL: Final[dict[str, Callable[[str], Path]]] = {
    "file": from_file,
    "pvc": from_volume,
    "package": from_package,
}
_SCHEMES: Final = ("hf", *_LOCAL)
# Folders in which others than the image's builder may have made links.
_WITH_LINKS: Final = ("file", "pvc")


def fetch(uri: str, revision: str = "", token_secret: str = "") -> Path:
    """Return the local folder of the model at `uri`, downloading it if it is on a hub.

    `token_secret` names the Secret with the token for the download. Raises SourceError with a sentence that
    names the URI and what was looked for.
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in _SCHEMES:
        raise SourceError(f"{uri}: the scheme must be one of {', '.join(_SCHEMES)}")
    if ".." in PurePosixPath(rest).parts:
        raise SourceError(f"{uri}: the path must not contain '..'")
    rules = allowing_rules(uri)
    folder = from_hub(rest, revision, token_secret) if scheme == "hf" else _LOCAL[scheme](rest)
    if scheme in _WITH_LINKS:
        require_no_secrets(uri, folder)
        if rules:
            require_inside(uri, folder, rules)
    if not folder.is_dir():
        # Some programs write a blank like that.
        hint = (
            "; %20 is not decoded: give the folder a name or a link without blanks" if "%20" in rest else ""
        )
        raise SourceError(f"{uri}: there is no folder {folder}{hint}")
    return folder


def commit_of(uri: str, folder: Path) -> str:
    """Return the commit of the hub whose files are in `folder`; empty for other sources.

    The hub's client names the folder of a snapshot by its commit.
    """
    return folder.name if uri.startswith("hf://") and folder.parent.name == "snapshots" else ""
