"""Texts of known length, the same at every run; pure."""

import random
from collections.abc import Sequence
from typing import Final

SHORT_WORDS: Final = (5, 24)
MIXED_WORDS: Final = (8, 256)
# Most texts of the mixed kind are short and a few are long, as in what people send.
MIXED_MEDIAN: Final = 40
MIXED_SPREAD: Final = 0.9

VOCABULARY: Final = """
the a this that my our we it they people room food movie story music service price time day
year city hotel waiter actor film scene book song phone screen battery sound staff was is
felt seemed looked came went made gave took wanted loved hated liked enjoyed missed bought
returned watched heard tried very quite really almost never always often again good bad great
poor slow quick clean dirty cheap loud quiet bright dark happy sad and but because with without
for from after before while
"""
WORDS: Final = VOCABULARY.split()


def make_texts(kind: str, count: int, seed: int = 11) -> list[str]:
    """Return `count` texts of the kind "short" or "mixed"."""
    source = random.Random(f"{kind} {seed}")
    return [" ".join(source.choices(WORDS, k=_words(kind, source))) for _ in range(count)]


def _words(kind: str, source: random.Random) -> int:
    if kind == "short":
        return source.randint(*SHORT_WORDS)
    shortest, longest = MIXED_WORDS
    drawn = round(MIXED_MEDIAN * source.lognormvariate(0, MIXED_SPREAD))
    return min(max(drawn, shortest), longest)


def sorted_batches(lengths: Sequence[int], window: int, batch: int) -> list[list[int]]:
    """Return positions in batches: sorted by length within each window, at most `batch` at once."""
    batches = []
    for start in range(0, len(lengths), window):
        positions = sorted(range(start, min(start + window, len(lengths))), key=lambda at: lengths[at])
        batches += [positions[at : at + batch] for at in range(0, len(positions), batch)]
    return batches
