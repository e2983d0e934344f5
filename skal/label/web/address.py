"""The address of the page: the last port and token, if the port is free."""

from __future__ import annotations

import html
import ipaddress
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from ...core.durable import write_atomic
from ...core.errors import UsageError
from .tokens import Tokens

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SECRET = 0o600
"""File mode: readable only by this user."""
ADDRESS = "address.json"
"""In the project's own folder: the last host, port and token."""
DOOR = "open.html"
"""Likewise: redirects the browser to the page, so that no process list shows the token."""


class PortTakenError(UsageError):
    """Another program uses the port."""


@dataclass
class Address:
    """The address of the page, and the `token` that gives access to it.

    The `socket` is already listening. `host` is the requested one, `own` replaces the addresses of
    this machine, and `moved_from` is the last port if it is taken now.
    """

    socket: socket.socket
    host: str
    token: str
    moved_from: int | None = None
    own: Sequence[str] = ()

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @property
    def is_local(self) -> bool:
        """Whether no other machine can reach it."""
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host.lower() == "localhost"

    def urls(self, annotators: Sequence[str] = ("me",)) -> list[str]:
        """Return the addresses of the page for each annotator, that of this machine first.

        With several annotators, each has a personal token, which takes no other name.
        """
        hosts = (self.own or own_addresses()) if "*" in names_of(self.host) else [self.host]
        hosts = [f"[{host}]" if ":" in host else host for host in hosts]
        tokens, are_several = Tokens(self.token), len(annotators) > 1
        asked = [
            (tokens.of(name) if are_several else self.token)
            + ("" if name == "me" else f"&as={quote(name)}")
            for name in annotators
        ]
        return [f"http://{host}:{self.port}/?token={one}" for one in asked for host in hosts]

    @property
    def notices(self) -> list[str]:
        """Warnings about the address for the person who starts the page."""
        notices = []
        if self.moved_from is not None:
            notices.append(
                f"the last port, {self.moved_from}, is taken: pages left open there stay "
                "disconnected until it is free again"
            )
        if not self.is_local:
            notices.append(
                f"--host {self.host}: images, labels and the token are sent unencrypted; use it "
                "only in a network that you trust"
            )
        return notices

    def keep(self, home: Path) -> None:
        """Store the address for the next time, readable only by this user."""
        if self.moved_from is None:
            facts = {"host": self.host, "port": self.port, "token": self.token}
            write_atomic(home / ADDRESS, json.dumps(facts), mode=SECRET)


@contextmanager
def claim(home: Path, host: str, port: int) -> Iterator[Address]:
    """Bind to the last address or another one; raise a UsageError if this is impossible.

    `home`, the project's own folder, need not exist. Port 0 means the last one if it is free, else
    any.
    """
    before = _read(home / ADDRESS, host)
    moved_from = None
    try:
        bound = listen(host, port or before.get("port", 0))
    except PortTakenError:
        if port:
            raise
        moved_from = before["port"]
        bound = listen(host, 0)
    with bound:
        token = before.get("token") or secrets.token_urlsafe(32)
        yield Address(bound, host, token, moved_from)


def _read(path: Path, host: str) -> dict[str, Any]:
    """Read what `Address.keep` wrote, unless other users could have read it."""
    try:
        status = path.stat()
        if os.name == "posix" and (status.st_mode & 0o077 or status.st_uid != os.geteuid()):
            return {}
        facts = json.loads(path.read_text(encoding="utf-8"))
        port, token = int(facts["port"]), str(facts["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if facts.get("host") != host or not 0 < port < 2**16 or not re.fullmatch(r"[\w-]{40,}", token):
        return {}
    return {"port": port, "token": token}


def listen(host: str, port: int) -> socket.socket:
    """Bind to a port of a host, 0 for any that is free; see `claim`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio sets TCP_NODELAY only if the protocol is given
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host: {host!r} is not an address here ({error})") from error
    try:
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        reason = f"{host}, port {port}: {error.strerror or error}"
        raise PortTakenError(f"cannot listen on {reason}; choose another --port") from error
    return bound


def names_of(host: str) -> set[str]:
    """Return the host names that a server bound to a host accepts."""
    names = {*LOOPBACK, host.lower() if ":" not in host else f"[{host.lower()}]"}
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:  # bound to all addresses of the machine
            names |= {"*", socket.gethostname().lower(), socket.getfqdn().lower()}
    return names


def own_addresses() -> list[str]:
    """Return the IP addresses of this machine, the loopback address first."""
    found = ["127.0.0.1"]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing, but selects the address that would be used
        found.append(probe.getsockname()[0])
    with suppress(OSError):
        found += socket.gethostbyname_ex(socket.gethostname())[2]
    return [host for host in dict.fromkeys(found) if host == found[0] or not host.startswith("127")]


def open_browser(home: Path, url: str) -> None:
    """Open the page in the browser of this machine, if it has a screen."""
    is_linux = sys.platform.startswith("linux")
    if is_linux and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    door = home / DOOR
    address = html.escape(url, quote=True)
    page = (
        '<!doctype html><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="0;url={address}">'
        f'<title>skal label</title><a href="{address}">skal label</a>\n'
    )
    write_atomic(door, page, mode=SECRET)
    if not is_linux:
        click.launch(str(door))
        return
    with suppress(OSError):
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(
            ["xdg-open", str(door.resolve())], stdin=quiet, stdout=quiet, stderr=quiet
        )
        threading.Thread(target=process.wait, daemon=True).start()
