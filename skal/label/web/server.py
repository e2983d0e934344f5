"""The page: an application for one project, guarded, and the server that runs it."""

from __future__ import annotations

import json
import logging
import mimetypes
import shlex
import socket
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...core.errors import MissingExtraError, SkalError, UsageError
from ..answers import check_key
from ..learning import Learner
from ..names import check_annotator, plain_text
from ..previews import FULL, LARGE, SMALL, Preview, Previews
from ..project import LabelProject
from ..rounds import NothingToUndoError, Rounds
from .address import LOOPBACK, Address, names_of

try:
    import uvicorn
    from jinja2 import Environment, FileSystemLoader
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    from .guard import Guard
except ImportError as error:
    package = str(error.name).partition(".")[0]
    raise MissingExtraError(package, "label", "skal label") from error

HERE = Path(__file__).parent
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
LARGEST_BODY = 2**20
LARGEST_GRID = 200

_log = logging.getLogger("skal")


def make_app(
    project: LabelProject,
    *,
    token: str,
    suggest: bool = False,
    rounds: Rounds | None = None,
    port: int = 80,
    hosts: Collection[str] = LOOPBACK,
) -> Starlette:
    """Make the application of a project.

    Parameters
    ----------
    project : LabelProject
        What is labelled.
    token : str
        Whoever knows it may label.
    suggest : bool, default=False
        Whether the network's guesses may be asked for.
    rounds : Rounds, optional
        What is shown to whom; by default batches are not computed, and images come at random.
    port : int
        Where it is served; part of the names it is asked by, and of its cookie.
    hosts : collection of str
        The names it may be asked by, without the port; "*" stands for any address in numbers,
        which no foreign page can pass off as its own.

    Returns
    -------
    Starlette
    """
    rounds = rounds or Rounds(project, Previews(project.root, project.paths))
    page = _Page(project, rounds, suggest)
    routes = [
        Route("/", page.index),
        Route("/api/state", page.state),
        Route("/api/grid", page.grid),
        Route("/api/guess/{number:int}", page.guess),
        Route("/api/actions", page.actions, methods=["POST"]),
        Route("/api/undo", page.undo, methods=["POST"]),
        Route("/images/{number:int}", page.image),
        Route("/thumbs/{number:int}", page.thumb),
        Route("/full/{number:int}", page.full),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _on_http_error, SkalError: _on_error}
    for suffix, kind in MEDIA_TYPES.items():  # a system's own table may say otherwise
        mimetypes.add_type(kind, suffix)
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.add_middleware(Guard, token=token, port=port, hosts=frozenset(hosts), project=project.id)
    return app


class _Page:
    """The answers to requests."""

    def __init__(self, project: LabelProject, rounds: Rounds, suggest: bool) -> None:
        self._project = project
        self._rounds = rounds
        self._suggest = suggest
        templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True)
        self._template = templates.get_template("index.html")

    def index(self, request: Request) -> Response:
        content = self._template.render(
            project=plain_text(self._project.name),
            id=self._project.id,
            folder=shlex.quote(plain_text(str(self._project.root))),
        )
        return HTMLResponse(content, headers={"Cache-Control": "no-store"})

    def state(self, request: Request) -> Response:
        return _json(self._state(request.query_params))

    def grid(self, request: Request) -> Response:
        text = request.query_params.get("n", "48")
        if not (text.isdecimal() and 0 < int(text[:9]) <= LARGEST_GRID):
            raise UsageError(f"n: got {text[:20]!r}; expected a number from 1 to {LARGEST_GRID}")
        images = self._rounds.grid(_annotator(request.query_params), int(text))
        self._rounds.previews.prepare(images, SMALL)
        described = [self._rounds.describe(image) for image in images]
        return _json({"images": described, "state": self._state(request.query_params)})

    def guess(self, request: Request) -> Response:
        if not self._suggest:
            raise HTTPException(404, "guesses are shown with --suggest alone")
        proba = self._rounds.guess(request.path_params["number"])
        if proba is None:
            raise HTTPException(404, "there is no guess at this image yet")
        label = int(proba.argmax())
        values = [round(float(value), 6) for value in proba]
        return _json({"label": label, "probability": values[label], "proba": values})

    async def actions(self, request: Request) -> Response:
        body = await _body(request)
        return await _threaded(self._act, body)

    async def undo(self, request: Request) -> Response:
        body = await _body(request)
        return await _threaded(self._undo, body)

    def image(self, request: Request) -> Response:
        return self._preview(request, LARGE)

    def thumb(self, request: Request) -> Response:
        return self._preview(request, SMALL)

    def full(self, request: Request) -> Response:
        return self._preview(request, FULL)

    def _act(self, body: Mapping[str, Any]) -> Response:
        annotator, many = _annotator(body), "actions" in body
        answers = body["actions"] if many else [body]
        if not (isinstance(answers, list) and all(isinstance(a, dict) for a in answers)):
            raise UsageError("actions: expected a list of objects")
        grid = body.get("grid") is True
        ids = self._rounds.act(annotator, answers, body.get("key"), grid=grid)
        told = {"ids": ids} if many else {"id": ids[0]}
        return _json({**told, "state": self._state(body)})

    def _undo(self, body: Mapping[str, Any]) -> Response:
        undone = self._rounds.undo(
            _annotator(body), body.get("key"), body.get("undoes"), _window(body)
        )
        told = [{"image": a.image, "action": a.action, "label": a.label} for a in undone]
        return _json({"undone": told, "state": self._state(body)})

    def _state(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        grid = asked.get("grid") in (True, "1")
        state = self._rounds.state(_annotator(asked), grid=grid, window=_window(asked))
        self._rounds.previews.prepare([entry["image"] for entry in state["queue"]], LARGE)
        return {**state, "suggest": self._suggest}

    def _preview(self, request: Request, side: int) -> Response:
        number = request.path_params["number"]
        if number not in self._project.paths:
            raise HTTPException(404, f"there is no image {number}")
        try:
            preview = self._rounds.previews.get(number, side)
        except (OSError, ValueError) as error:
            raise HTTPException(404, f"image {number} cannot be read") from error
        return _conditional(request, preview)


def _annotator(asked: Mapping[str, Any]) -> str:
    name = asked.get("as")
    if name is not None and not isinstance(name, str):
        raise UsageError("as: expected a name")
    return check_annotator("me" if name is None else name)


def _window(asked: Mapping[str, Any]) -> str | None:
    return check_key(asked.get("window"))


async def _threaded(answer: Callable[[Mapping[str, Any]], Response], body: Any) -> Response:
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(answer, body)


async def _body(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "expected a body of the type application/json")
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST_BODY:
            raise HTTPException(413, f"the body is larger than {LARGEST_BODY} bytes")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "expected a JSON object")
    return body


def _json(content: Mapping[str, Any]) -> Response:
    return JSONResponse(content, headers={"Cache-Control": "no-store"})


def _conditional(request: Request, preview: Preview) -> Response:
    headers = {
        "ETag": f'"{preview.tag}"',
        "Cache-Control": "private, max-age=86400, immutable",
        # the next project at this address has images of the same numbers, and another cookie
        "Vary": "Cookie",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(preview.content, media_type=preview.media_type, headers=headers)


def _on_http_error(request: Request, error: Any) -> Response:
    headers = {**(error.headers or {}), "Cache-Control": "no-store"}
    return JSONResponse({"error": error.detail}, error.status_code, headers)


def _on_error(request: Request, error: Any) -> Response:
    """Answer with one clear line; what is not the asker's fault is a server's error."""
    status = 409 if isinstance(error, NothingToUndoError) else 400
    if not isinstance(error, UsageError):
        _log.error("%s", error, exc_info=error)
        status = 500
    return JSONResponse({"error": str(error)}, status, {"Cache-Control": "no-store"})


def serve(project: LabelProject, address: Address, *, suggest: bool = False) -> None:
    """Serve the page until Ctrl-C.

    Parameters
    ----------
    project : LabelProject
        What is labelled; left open.
    address : Address
        Where; requests are answered from the first on, also such as came before this was called.
    suggest : bool
        Whether the network's guesses may be asked for.
    """
    previews = Previews(project.root, project.paths)
    rounds = Rounds(project, previews)
    app = make_app(
        project,
        token=address.token,
        suggest=suggest,
        rounds=rounds,
        port=address.port,
        hosts=names_of(address.host),
    )
    # Pillow warns of odd metadata and large images; who looks at them sees what counts
    warnings.filterwarnings("ignore", module="PIL")
    learner = Learner(project.learner_setup(), rounds.on_answer, rounds.on_failure)
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
    server = _Server(config, on_start=lambda: rounds.start(learner))
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[address.socket])
    finally:
        learner.stop()
        previews.close()


class _Server(uvicorn.Server):
    """Uvicorn's, that says when it has begun."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()
