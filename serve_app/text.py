"""Text of messages: foreign values, quoted and bounded, and the cause in what Ray says of a failure.

Pure text; both the operator and the Serve application use it.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

LONGEST_SHOWN: Final = 80
LONGEST_CAUSE: Final = 400

# The last line of a traceback: a dotted exception name, a colon, a sentence.
_EXCEPTION_LINE: Final = re.compile(
    r"^\s*(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Exit|Interrupt)): (.+)$"
)
_TORCHSCRIPT: Final = "Traceback of TorchScript"
# Our own errors whose sentence says it all, so that the name of the class is left out.
_SELF_EXPLAINING: Final = frozenset({"SourceError", "ModelLoadError", "ModelFailedError", "StuckModelError"})


def quoted(value: Any) -> str:
    """Return `value` as a Python literal, cut after LONGEST_SHOWN characters."""
    return shortened(repr(value))


def shortened(text: str) -> str:
    """Return `text`, cut after LONGEST_SHOWN characters."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def words(error: BaseException) -> str:
    """Return the exception's own message in one line, after its class unless that is one of our own.

    At most LONGEST_CAUSE characters. Of a message of TorchScript, which is a traceback, the last line.
    """
    message = str(error)
    if _TORCHSCRIPT in message:
        message = message.strip().splitlines()[-1]
    name = type(error).__name__
    sentence = " ".join(message.split()).removeprefix(f"{name}: ")
    if name in _SELF_EXPLAINING:
        return _bounded(sentence)
    return _bounded(f"{name}: {sentence}" if sentence else name)


def _bounded(cause: str) -> str:
    return cause if len(cause) <= LONGEST_CAUSE else f"{cause[: LONGEST_CAUSE - 1]}…"


def application_cause(deployment_messages: Iterable[str], application_message: str) -> str:
    """Return the first cause found in the messages of an application's deployments, then in its own."""
    # The application's own message says at best which deployment failed.
    return next(filter(None, map(cause_of, [*deployment_messages, application_message])), "")


def cause_of(message: str) -> str:
    """Return the last exception line in `message`; without one, the last line of a traceback or all.

    At most LONGEST_CAUSE characters, in one line.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    cause = lines[-1] if "Traceback" in message else " ".join(lines)
    for line in reversed(lines):
        found = _EXCEPTION_LINE.match(line)
        if found:
            name, sentence = found.groups()
            cause = sentence if name in _SELF_EXPLAINING else f"{name}: {sentence}"
            break
    return _bounded(cause)


def first_few(names: Iterable[str]) -> str:
    """Return the first three of `names` as a list in a sentence, with an ellipsis for the rest."""
    listed = list(names)
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
