"""A real `skal label` in a process of its own, and a client that labels through its interface."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image

PATIENCE = 120.0


class Client:
    """Somebody at the page."""

    def __init__(self, url: str, annotator: str = "me") -> None:
        parts = urlsplit(url)
        self.url = url
        self.annotator = annotator
        self.http = httpx.Client(base_url=f"{parts.scheme}://{parts.netloc}", timeout=PATIENCE)
        page = self.http.get(url, follow_redirects=True)
        assert page.status_code == 200
        project = re.search(r'data-project="(\w+)"', page.text)
        assert project is not None
        self.http.headers["X-Skal-Project"] = project[1]

    def state(self) -> dict[str, Any]:
        return self._json(self.http.post("/api/next", json={"as": self.annotator}))

    def act(self, action: str, image: int, label: int | None = None, **more: Any) -> dict[str, Any]:
        body = {"as": self.annotator, "action": action, "image": image, "label": label, **more}
        return self._json(self.http.post("/api/actions", json=body))

    def label(self, image: int, label: int, **more: Any) -> dict[str, Any]:
        return self.act("label", image, label, **more)

    def undo(self) -> dict[str, Any]:
        return self._json(self.http.post("/api/undo", json={"as": self.annotator}))

    def wait_for(
        self, holds: Callable[[dict[str, Any]], bool], patience: float = PATIENCE
    ) -> dict[str, Any]:
        """Ask for the state until something holds of it."""
        end = time.monotonic() + patience
        while not holds(state := self.state()):
            assert time.monotonic() < end, state
            time.sleep(0.05)
        return state

    @staticmethod
    def _json(response: httpx.Response) -> dict[str, Any]:
        assert response.status_code == 200, response.text
        return response.json()


class Server:
    """`skal label` as a process."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "skal", "label", str(folder), "--no-browser", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "default", **(env or {})},
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self._clients: list[Client] = []

    def client(self, annotator: str = "me") -> Client:
        self._clients.append(Client(self.url, annotator))
        return self._clients[-1]

    def close(self) -> None:
        """End whatever is still there."""
        for client in self._clients:
            client.http.close()
        if self.process.poll() is None:
            self.kill()

    def stop(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit code and what stood on stderr."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err

    def kill(self) -> None:
        """Take away the process from one instruction to the next, as a crash does."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def serving(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    server = Server(folder, *arguments, env=env)
    try:
        yield server
    finally:
        server.close()


def write_images(folder: Path, images: np.ndarray, names: list[str] | None = None) -> list[str]:
    """Write grey images, (n, height, width) of uint8, as PNGs; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"{number:05d}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    return names


@contextmanager
def disk_full(folder: Path, table: str) -> Iterator[None]:
    """Let nothing be written to a table of a project's store inside the block."""
    with closing(sqlite3.connect(folder / ".skal/labels.sqlite", isolation_level=None)) as store:
        refuse = "SELECT RAISE(ABORT, 'database or disk is full')"
        store.execute(f"CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN {refuse}; END")
        yield
        store.execute("DROP TRIGGER full")


class InProcess(httpx.BaseTransport):
    """Asks an application without a server in between."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            answer = await self._inner.handle_async_request(request)
            content = await answer.aread()
            return httpx.Response(answer.status_code, headers=answer.headers, content=content)

        return asyncio.run(ask())
