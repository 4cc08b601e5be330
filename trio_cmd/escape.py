r"""Text made safe to show: bytes or text enter, text without control characters leaves.

Clients, log files and settings hold bytes that a terminal or a log reader would act on.
Everything shown to a client and everything recorded goes through here, so that there is one
rule for all: a tab stays; other control characters, the Unicode characters that break lines or
turn the direction of writing, and every byte that is not UTF-8 become ``\xNN`` or ``\uNNNN``;
and what looks like a token becomes ``tcmd_***``.
"""

from collections.abc import Mapping

from trio_cmd.tokens import PREFIX, redact

__all__ = ["escape", "escape_lines", "quote"]


def _unsafe_characters() -> Mapping[int, str]:
    """List the characters that are not shown, and how each is spelled."""
    controls = (*range(9), *range(0x0A, 0x20), *range(0x7F, 0xA0))  # C0 but the tab, DEL, C1
    turning = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # marks of direction
    separators = (0x2028, 0x2029)  # of lines and paragraphs
    surrogates = range(0xD800, 0xE000)  # no characters; U+DC80 to U+DCFF carry bytes that are not UTF-8
    spelled = {number: f"\\u{number:04x}" for number in (*turning, *separators, *surrogates)}
    spelled |= {number: f"\\x{number:02x}" for number in controls}
    return spelled | {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}


# A table for str.translate: a search with a function for each match takes ten times as long.
_UNSAFE = _unsafe_characters()
_UNSAFE_BUT_LINE_FEED = {number: text for number, text in _UNSAFE.items() if number != 0x0A}


def _decode(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")


def escape(data: bytes | str) -> str:
    """Make one line of text safe to show; a line feed in it is escaped too.

    Cut it afterwards, or redact it before: a piece of a token is not known for one.
    """
    text = _decode(data)
    # Nothing unsafe is printable, and to ask this is ten times cheaper than to look at each character.
    if not text.isprintable():
        text = text.translate(_UNSAFE)
    return redact(text) if PREFIX in text else text


def escape_lines(data: bytes | str) -> list[str]:
    """Split at line feeds and make each line safe to show; a last empty piece is no line."""
    text = _decode(data)
    if not text.replace("\n", "").replace("\t", "").isprintable():
        text = text.translate(_UNSAFE_BUT_LINE_FEED)
    if PREFIX in text:
        text = redact(text)
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
