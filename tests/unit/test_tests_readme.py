import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_that_the_page_names_is_there():
    named = re.findall(r"`([\w/.]+\.py)::(\w+)`", (TESTS / "README.md").read_text())
    assert len(named) > 16
    assert [test for file, test in named if f"\ndef {test}(" not in (TESTS / file).read_text()] == []
