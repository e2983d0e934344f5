"""Checks of all requests: host name, origin and body."""

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


def refusal(scope: Scope, headers: Headers, port: int, hosts: Collection[str]) -> str | None:
    """Return why a request is refused (a foreign host name or origin); None if it is not.

    `hosts` are the server's names without the `port`. "*" stands for any IP address, which a
    foreign page cannot rebind as it can a name.
    """
    host = headers.get("host", "").lower()
    if len(headers.getlist("host")) != 1 or not _is_own(host, port, hosts):
        shown = repr(headers.get("host", "")[:100])
        return f"{shown} is not an address of this page; use --host to add one"
    is_foreign = headers.get("origin", f"http://{host}").lower() != f"http://{host}"
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        is_foreign |= scope["method"] not in ("GET", "HEAD") or scope["path"] != "/"
    return "the request comes from another page" if is_foreign else None


def _is_own(host: str, own_port: int, hosts: Collection[str]) -> bool:
    name, _, port = host.rpartition(":")
    if not (name and port.isdecimal() and not name.endswith(":")):
        name, port = host, "80"
    if int(port[:9]) != own_port:
        return False
    if name not in hosts and "*" in hosts:
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name.strip("[]")))
    return name in hosts


async def json_body(request: Request, largest: int) -> dict[str, Any]:
    """Return the JSON object in a request; raise an HTTPException if it is invalid or too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "expected a body of type application/json")
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > largest:
            raise HTTPException(413, f"the body is larger than {largest} bytes")
    with suppress(ValueError, RecursionError):
        if isinstance(body := json.loads(content), dict):
            return body
    raise HTTPException(400, "expected a JSON object")
