"""Text from outside, such as file names, made safe for files and terminals."""

from __future__ import annotations

import unicodedata

CONTROLS = frozenset(("Cc", "Cs", "Zl", "Zp"))
DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain_text(text: str) -> str:
    """Return text that can be encoded: bytes that are no valid characters are replaced."""
    if text.isascii():
        return text
    try:
        content = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # lone surrogates, which JSON may contain
        content = text.encode(errors="surrogatepass")
    return content.decode(errors="replace")


def plural(n: int, one: str, several: str | None = None) -> str:
    """Return the singular or plural of a word for `n`."""
    return one if n == 1 else several or f"{one}s"


def counted(n: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun: "1 image", "2 images"."""
    return f"{n} {plural(n, one, several)}"


def shown(text: str, keep: str = "") -> str:
    """Return text with control and direction characters escaped, except those in `keep`, so that a
    terminal shows it and does not obey it.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if _controls(c) and c not in keep else c
        for c in plain_text(text)
    )


def _controls(character: str) -> bool:
    if character.isprintable():
        return False
    # others are spaces, or join neighbouring letters, as names in many languages need
    return unicodedata.category(character) in CONTROLS or character in DIRECTIONS
