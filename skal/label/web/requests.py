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


def refusal(scope: Scope, headers: Headers, port: int, hosts: Collection[str]) -> str | None:
    """Return why a request is not answered: it is not asked by the server's own name, or from
    another's page; None if it is.

    `hosts` are its names without the `port`: "*" stands for any address in numbers, which no
    foreign page can pass off as its own.
    """
    host = headers.get("host", "").lower()
    if len(headers.getlist("host")) != 1 or not _is_own(host, port, hosts):
        told = repr(headers.get("host", "")[:100])
        return f"{told} is not an address of this page; --host gives it another"
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
