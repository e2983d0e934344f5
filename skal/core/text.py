"""Text that comes from outside, such as names of files, for files and terminals."""

from __future__ import annotations

import unicodedata

CONTROLS = frozenset(("Cc", "Cs", "Zl", "Zp"))
DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain_text(text: str) -> str:
    """Return text that can be written anywhere: what stands for bytes of no character is lost."""
    if text.isascii():
        return text
    try:
        content = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # of halves of characters, which JSON may have
        content = text.encode(errors="surrogatepass")
    return content.decode(errors="replace")


def plural(n: int, one: str, several: str | None = None) -> str:
    """Return a word for so many."""
    return one if n == 1 else several or f"{one}s"


def counted(n: int, one: str, several: str | None = None) -> str:
    """Return a number and what there are so many of: "1 image", "2 images"."""
    return f"{n} {plural(n, one, several)}"


def shown(text: str, keep: str = "") -> str:
    """Return text that a terminal shows and does not obey: characters that control it, or the
    direction of what is written, are escaped, but for those to `keep`.
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
    # others are spaces, or join what stands beside them, as names in many languages need
    return unicodedata.category(character) in CONTROLS or character in DIRECTIONS
