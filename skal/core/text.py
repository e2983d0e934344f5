"""Text that comes from outside, such as names of files, for files and terminals."""

from __future__ import annotations


def plain_text(text: str) -> str:
    """Return text that can be written anywhere: what stands for bytes of no character is lost."""
    if text.isascii():
        return text
    try:
        content = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # of halves of characters, which JSON may have
        content = text.encode(errors="surrogatepass")
    return content.decode(errors="replace")


def shown(text: str, keep: str = "") -> str:
    """Return text that a terminal shows and does not obey: what is not printable, but for the
    characters to `keep`, is escaped.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode()
        for c in plain_text(text)
    )
