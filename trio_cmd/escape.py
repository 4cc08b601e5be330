r"""Text made safe to show: bytes or text enter, text without control characters leaves.

Clients, log files and settings hold bytes that a terminal or a log reader would act on.
Everything shown to a client and everything recorded goes through here, so that there is one
rule for all: a tab stays; other control characters, the Unicode characters that break lines or
turn the direction of writing, and every byte that is not UTF-8 become ``\xNN`` or ``\uNNNN``.
"""

import re

__all__ = ["escape", "escape_lines", "quote"]

# C0 but the tab, DEL and C1; marks and embeddings of direction; line and paragraph separators;
# lone surrogates, which is how Python carries bytes that are not UTF-8 in text.
_UNSAFE_CLASS = "\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[\x00-\x08\x0a-\x1f{_UNSAFE_CLASS}]")
_UNSAFE_BUT_LINE_FEED = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSAFE_CLASS}]")


def _spell(match: re.Match[str]) -> str:
    number = ord(match[0])
    if 0xDC80 <= number <= 0xDCFF:  # a byte that os.fsdecode() could not decode
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _decode(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("utf-8", "backslashreplace")


def escape(data: bytes | str) -> str:
    """Make one line of text safe to show; a line feed in it is escaped too."""
    text = _decode(data)
    # Nothing unsafe is printable, and to ask this is ten times cheaper than to search.
    return text if text.isprintable() else _UNSAFE.sub(_spell, text)


def escape_lines(data: bytes | str) -> list[str]:
    """Split at line feeds and make each line safe to show; a last empty piece is no line."""
    text = _decode(data)
    if not text.replace("\n", "").replace("\t", "").isprintable():
        text = _UNSAFE_BUT_LINE_FEED.sub(_spell, text)
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def quote(data: bytes | str) -> str:
    """Put safe text in quotes, choosing and escaping them as Python's ``repr`` does."""
    text = escape(data)
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    return "'" + text.replace("'", "\\'") + "'"
