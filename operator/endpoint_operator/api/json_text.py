"""JSON that YAML parsers read, too; pure.

The API server reads what is applied as YAML, and KubeRay reads the Serve config as YAML. JSON is YAML, but
for one thing: Go's parser refuses an escaped surrogate pair, by which JSON may write a character beyond
U+FFFF (`go.yaml.in/yaml/v2`, scannerc.go).
"""

import json
import re
from typing import Any, Final

# A backslash that is escaped itself, a pair, or half of one.
_ESCAPE: Final = re.compile(r"\\\\|\\u(d[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}|\\ud[89a-f][0-9a-f]{2}")

_REPLACEMENT: Final = "\\ufffd"


def to_json(value: Any, indent: int | None = None) -> str:
    """Serialize `value` with sorted keys; without `indent`, on one line without spaces.

    Characters beyond U+FFFF stand for themselves, and half a surrogate pair becomes U+FFFD.
    """
    separators = (",", ":") if indent is None else None
    return _ESCAPE.sub(_without_pair, json.dumps(value, sort_keys=True, indent=indent, separators=separators))


def without_half_pairs(text: str) -> str:
    """Return `text` with U+FFFD for each surrogate that has no partner; such a text cannot be encoded."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _without_pair(found: re.Match[str]) -> str:
    if found[0] == "\\\\":
        return found[0]
    return str(json.loads(f'"{found[0]}"')) if found[1] else _REPLACEMENT
