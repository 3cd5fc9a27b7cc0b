"""Rules by which models may come: `sources.allow` of the chart; pure.

The operator refuses an endpoint by them, and a replica looks at them again before it loads. A rule is a
scheme, as in `hf`, or the beginning of a URI, as in `hf://org`, `hf://org/name`, `file:///models`,
`pvc://claim/folder` and `package://package`. It is compared segment by segment, so `hf://org` does not let
`hf://organisation/name` in. Without any rule, models may come from everywhere.
"""

from collections.abc import Iterable, Sequence
from typing import Final

SCHEMES: Final = ("hf", "file", "pvc", "package")

# A part of a path between two slashes, which may not consist of dots alone.
_SEGMENT: Final = r"\.*[^/.\x00-\x20\x7f][^/\x00-\x20\x7f]*"
# Also in the schema of the chart's values. A slash at the end changes nothing.
RULE_PATTERN: Final = (
    rf"^((hf|file|pvc|package)(://)?|hf://{_SEGMENT}(/{_SEGMENT})?/?|file://(/{_SEGMENT})+/?"
    rf"|(pvc|package)://{_SEGMENT}(/{_SEGMENT})*/?)$"
)

# Of a longer list, a sentence names the first ones.
_NAMED: Final = 10


def is_allowed(uri: str, rules: Iterable[str]) -> bool:
    """Return whether a model may come from `uri`: there are no rules, or one of them lets it in.

    A URI with an empty segment, '.' or '..' fits no rule.
    """
    listed = list(rules)
    if not listed:
        return True
    wanted = _parts(uri)
    return wanted is not None and any(_covers(rule, wanted) for rule in listed)


def objection(uri: str, rules: Sequence[str]) -> str:
    """Return a sentence that says why a model may not come from `uri`; an empty text if it may."""
    if is_allowed(uri, rules):
        return ""
    named = ", ".join(rules[:_NAMED]) + (", …" if len(rules) > _NAMED else "")
    return f"model.uri: {uri} is no allowed source; sources.allow of the chart has {named}"


def _covers(rule: str, wanted: tuple[str, ...]) -> bool:
    allowed = _parts(rule)
    return allowed is not None and wanted[: len(allowed)] == allowed


def _parts(text: str) -> tuple[str, ...] | None:
    """Return the scheme and the segments of a URI or a rule; None if a segment is empty or consists of dots.

    Nothing is decoded, because nothing that opens a URI decodes it: `%2e` is a part of a name.
    """
    scheme, _, rest = text.partition("://")
    if not rest:
        return (scheme,) if scheme in SCHEMES else None
    if scheme == "file":
        if not rest.startswith("/"):
            return None
        rest = rest[1:]
    segments = rest.removesuffix("/").split("/")
    if scheme not in SCHEMES or any(segment.strip(".") == "" for segment in segments):
        return None
    return (scheme, *segments)
