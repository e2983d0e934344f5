"""What is checked of any request: by which name the server was asked, from where, and its body."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope


class OwnAddress:
    """Tells who asks by the server's own name, and not from another's page.

    `hosts` are its names without the `port`: "*" stands for any address in numbers, which no
    foreign page can pass off as its own.
    """

    def __init__(self, port: int, hosts: Collection[str]) -> None:
        self._port = port
        self._hosts = hosts

    def refusal(self, scope: Scope, headers: Headers) -> str | None:
        """Return why a request is not answered; None if it is."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._is_own(host):
            return f"{host[:100]!r} is not an address of this page; --host gives it another"
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host.lower()}":
            return "the request comes from another page"
        foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if foreign and (scope["method"] not in ("GET", "HEAD") or scope["path"] != "/"):
            return "the request comes from another page"
        return None

    def _is_own(self, host: str) -> bool:
        name, _, port = host.lower().rpartition(":")
        if not (name and port.isdecimal() and not name.endswith(":")):
            name, port = host.lower(), "80"
        if int(port[:9]) != self._port:
            return False
        if name in self._hosts:
            return True
        if "*" in self._hosts:
            with suppress(ValueError):
                return bool(ipaddress.ip_address(name.strip("[]")))
        return False


async def json_body(request: Request, largest: int) -> dict[str, Any]:
    """Return the JSON object that a request brings; an HTTPException if it is none or too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "expected a body of the type application/json")
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > largest:
            raise HTTPException(413, f"the body is larger than {largest} bytes")
    with suppress(ValueError, RecursionError):
        if isinstance(body := json.loads(content), dict):
            return body
    raise HTTPException(400, "expected a JSON object")
