"""Picture: an SVG made of boxes, arrows and text, readable on light and dark pages and on a telephone."""

from pathlib import Path
from xml.sax.saxutils import escape

#: Units of the drawing. On a telephone it is about as many pixels wide, so that 13 units of text stay readable.
WIDTH = 480
#: Pixels where there is room.
SHOWN_WIDTH = 600
#: It fills the background too: a page may be light where the reader's system is dark.
STYLE = Path(__file__).with_name("picture.css").read_text()
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse">'
    '<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker>'
)


class Picture:
    """An SVG in the making. Coordinates are units; lines of text begin with # (bold), ` (monospace) or ~ (small)."""

    def __init__(self, name: str, height: int, title: str, description: str) -> None:
        self.name = name
        size = f'width="{SHOWN_WIDTH}" height="{height * SHOWN_WIDTH // WIDTH}"'
        labels = f'aria-labelledby="{name}-title {name}-text"'
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {size} role="img" {labels}>',
            f'<title id="{name}-title">{escape(title)}</title>\n<desc id="{name}-text">{escape(description)}</desc>',
            f"<style>{STYLE}\n</style>",
            f"<defs>{TIP}</defs>",
            f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        ]

    def box(self, x: int, y: int, width: int, height: int, *lines: str, kind: str = "box") -> None:
        """A box with centred lines of text."""
        self._parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>')
        first = y + height / 2 - (len(lines) - 1) * 8.5 + 4.5
        for number, line in enumerate(lines):
            self.text(x + width / 2, first + number * 17, line)

    def frame(self, x: int, y: int, width: int, height: int, title: str) -> None:
        """A dashed box around others, with its title at the top."""
        self._parts.append(f'<rect class="outer" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>')
        self.text(x + 12, y + 20, title, anchor="start")

    def text(self, x: float, y: float, line: str, *, anchor: str = "middle", extra: str = "") -> None:
        kind = {"#": "head", "`": "mono", "~": "small"}.get(line[:1], "")
        names = " ".join(filter(None, (kind, extra)))
        shown = escape(line[1:] if kind else line)
        classes = f' class="{names}"' if names else ""
        self._parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{classes}>{shown}</text>')

    def notes(self, x: int, y: int, *lines: str) -> None:
        for number, line in enumerate(lines):
            self.text(x, y + number * 16, f"~{line}", anchor="start")

    def arrow(self, path: str, *, both: bool = False) -> None:
        """A line with a tip. `path` is SVG's: M x y L x y …"""
        start = ' marker-start="url(#tip)"' if both else ""
        self._parts.append(f'<path class="line" d="{path}" marker-end="url(#tip)"{start}/>')

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])
