"""Draw requests a second of every server as an SVG; pure."""

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from bench.rows import ARTICLE, IN_PROCESS, OURS, PEERS, Row, find

WIDTH: Final = 760
LABEL_WIDTH: Final = 110
BAR_HEIGHT: Final = 16
GAP: Final = 6
PANEL_HEAD: Final = 40
COLOURS: Final = {OURS: "#1f6f8b", IN_PROCESS: "#9aa5ad", ARTICLE: "#b5523b"}
OTHER_COLOUR: Final = "#c9b26b"
SERVERS: Final = (IN_PROCESS, OURS, *PEERS, ARTICLE)


def draw(rows: Sequence[Row], dtype: str, clients: int, heading: str) -> str:
    """Return the picture: a panel of bars for each model and kind of text, closed loop."""
    parts: list[str] = []
    top = PANEL_HEAD
    for model, texts in dict.fromkeys((row.model, row.texts) for row in rows):
        panel = [
            row
            for server in SERVERS
            if (row := find(rows, server=server, model=model, texts=texts, dtype=dtype, load="closed",
                            clients=clients))
        ]  # fmt: skip
        if panel:
            parts += _panel(panel, f"{model}, {texts} texts", top)
            top += PANEL_HEAD + len(panel) * (BAR_HEIGHT + GAP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
            f'viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{top}" fill="white"/>',
            _text(12, 22, heading, "bold"),
            *parts,
            "</svg>\n",
        ]
    )


def _panel(rows: Sequence[Row], title: str, top: int) -> list[str]:
    longest = max(row.rps for row in rows) or 1.0
    room = WIDTH - LABEL_WIDTH - 80
    parts = [_text(12, top + 16, title, "bold")]
    for number, row in enumerate(rows):
        y = top + 26 + number * (BAR_HEIGHT + GAP)
        width = room * row.rps / longest
        colour = COLOURS.get(row.server, OTHER_COLOUR)
        parts += [
            _text(12, y + 12, row.server),
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}" fill="{colour}"/>',
            _text(LABEL_WIDTH + width + 6, y + 12, f"{row.rps:.0f}"),
        ]
    return parts


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}">{escape(text)}</text>'
