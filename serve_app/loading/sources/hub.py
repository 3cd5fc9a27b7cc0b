"""Models of a hub: only hf:// is downloaded. An endpoint's own token is read from a mounted Secret."""

import os
import re
from pathlib import Path
from typing import Any, Final

from serve_app.loading.sources.errors import SourceError

# One file for each Secret of hub.tokenSecrets, by its name; the chart mounts them there.
TOKENS_FOLDER: Final = "/var/run/secrets/hub-tokens"
TOKENS_VARIABLE: Final = "MODEL_ENDPOINTS_HUB_TOKENS"

# Weights as safetensors, configuration and tokenizer. Never pickled weights or Python code.
HUB_FILES: Final = [
    *("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"),
    *("*.spm", "*.codes", "*.tiktoken", "*.bpe", "*.vocab", "*.tokenizer"),
]
# Folders and files of other programs, some as large as the weights.
NOT_HUB_FILES: Final = ["onnx/*", "openvino/*", "original/*", "coreml/*", "consolidated*.safetensors"]

LONGEST_REASON: Final = 300


def from_hub(name: str, revision: str, token_secret: str) -> Path:
    """Return the folder of the model `name`, which is downloaded unless it is there; raise SourceError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    at = f"hf://{name}" + (f" at revision {revision}" if revision else "")
    own = _own_access(token_secret) if token_secret else {}
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=HUB_FILES,
                ignore_patterns=NOT_HUB_FILES,
                **own,
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


def _own_access(token_secret: str) -> dict[str, Any]:
    """Return the options of a download with the endpoint's own token, into a cache of this token's.

    The hub's client takes what is in its cache without asking whether the token may read it. So what one
    token has downloaded must not be in the cache of another.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    return {"token": _token(token_secret), "cache_dir": Path(HF_HUB_CACHE) / ".tokens" / token_secret}


def _token(token_secret: str) -> str:
    file = Path(os.environ.get(TOKENS_VARIABLE, TOKENS_FOLDER)) / token_secret
    try:
        token = file.read_text(encoding="ascii").strip()
    except OSError:
        raise SourceError(
            f"model.tokenSecret: there is no token of a Secret {token_secret!r} here; the Secret must have "
            "the key token, and hub.tokenSecrets of the chart must list it"
        ) from None
    except UnicodeDecodeError:
        token = ""
    # An HTTP library would quote what cannot be in a header, and so would the endpoint's status.
    if not re.fullmatch(r"[!-~]+", token):
        raise SourceError(
            f"model.tokenSecret: the key token of the Secret {token_secret!r} must hold one word of ASCII"
        )
    return token


def _reason(error: Exception) -> str:
    """Return the error's message in one line of bounded length."""
    return " ".join(str(error).split())[:LONGEST_REASON]
