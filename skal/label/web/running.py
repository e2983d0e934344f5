"""Run an application until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp


def run_app(
    app: ASGIApp, listening: socket.socket, on_start: Callable[[], None] = lambda: None
) -> None:
    """Serve requests to a listening socket, including earlier ones, until Ctrl-C."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    with suppress(KeyboardInterrupt):
        _Server(config, on_start).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Uvicorn's server, which calls back when it has started."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()
