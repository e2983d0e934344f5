"""Access tokens: one for the page, which takes any name, and one for each person."""

from __future__ import annotations

import base64
import hmac
import secrets
from contextlib import suppress

ANYBODY = ""
"""The owner of the token that takes any name."""


class Tokens:
    """The tokens of a page, all derived from its main `token`, which takes any name.

    A person's token has the name and an HMAC of it with the main token as the key. So these tokens
    need not be stored, and never change.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def of(self, name: str) -> str:
        """Return the token of one person, which takes no other name."""
        seal = hmac.digest(self._token, name.encode(), "sha256")
        return f"{_text(name.encode())}.{_text(seal)}"

    def whose(self, text: str) -> str | None:
        """Return the name of a token, `ANYBODY` for any name; None if it is not valid."""
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
