"""Who may ask: anybody by the one token of a page, and each person by a token of their own."""

from __future__ import annotations

import base64
import hmac
import secrets
from contextlib import suppress

ANYBODY = ""
"""Whose token it is that takes any name."""


class Tokens:
    """The tokens of a page, all made of its one `token`, which takes any name.

    That of a person says the name, and holds a seal on it that nobody makes without the `token`; so
    none of them need be kept, and they are the same tomorrow.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def of(self, name: str) -> str:
        """Return the token of one person, who takes no other name by it."""
        seal = hmac.digest(self._token, name.encode(), "sha256")
        return f"{_text(name.encode())}.{_text(seal)}"

    def whose(self, text: str) -> str | None:
        """Return the name that a token lets ask by, `ANYBODY` for any; None if it is not one."""
        if secrets.compare_digest(text.encode(errors="replace"), self._token):
            return ANYBODY
        encoded = text.partition(".")[0]
        with suppress(ValueError):
            padded = encoded + "=" * (-len(encoded) % 4)
            name = base64.urlsafe_b64decode(padded.encode("ascii")).decode()
            if name and secrets.compare_digest(text.encode("ascii"), self.of(name).encode()):
                return name
        return None


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
