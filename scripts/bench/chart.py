"""Names and numbers enter, an SVG of horizontal bars leaves."""

from collections.abc import Mapping
from html import escape

WIDTH, ROW, TOP, LEFT, RIGHT = 720, 26, 40, 120, 110
INK, OURS, THEIRS = "#222222", "#1f6f8b", "#b9c4c9"
FONT = 'font-family="sans-serif" font-size="13"'


def draw(title: str, values: Mapping[str, float], unit: str, ours: str, edge: float) -> str:
    """Draw a bar for each name.

    Args:
        title: above.
        values: name -> number; shorter is better.
        unit: of the numbers.
        ours: the name that is marked.
        edge: the number that is as wide as the picture; what is longer is drawn torn off.
    """
    height = TOP + ROW * len(values) + 10
    rows = "".join(
        draw_bar(
            name, value, f"{value:,.{digits(value)}f} {unit}", TOP + ROW * place, edge, is_ours=name == ours
        )
        for place, (name, value) in enumerate(values.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" role="img">'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="10" y="24" {FONT} font-weight="bold" fill="{INK}">{escape(title)}</text>\n{rows}</svg>\n'
    )


def draw_bar(name: str, value: float, text: str, top: int, edge: float, *, is_ours: bool) -> str:
    """Draw one bar, its name before it and its number behind it."""
    room = WIDTH - LEFT - RIGHT
    width = room * min(value, edge) / edge
    middle = top + ROW // 2 + 2
    tear = "" if value <= edge else draw_tear(LEFT + room - 14, top)
    return (
        f'<text x="{LEFT - 8}" y="{middle}" {FONT} text-anchor="end" fill="{INK}">{escape(name)}</text>\n'
        f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{ROW - 8}" '
        f'fill="{OURS if is_ours else THEIRS}"/>\n{tear}'
        f'<text x="{LEFT + width + 6:.1f}" y="{middle}" {FONT} fill="{INK}">{escape(text)}</text>\n'
    )


def draw_tear(left: int, top: int) -> str:
    """Draw the mark of a bar that is longer than the picture."""
    return f'<path d="M{left} {top + ROW - 8} l6 {8 - ROW} h5 l-6 {ROW - 8} z" fill="white"/>\n'


def digits(value: float) -> int:
    """Tell how many digits behind the point mean something."""
    return 0 if value >= 100 else 1 if value >= 10 else 2
