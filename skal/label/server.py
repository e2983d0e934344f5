"""The page: an application for one project, guarded, and the server that runs it."""

from __future__ import annotations

import ipaddress
import json
import logging
import mimetypes
import secrets
import socket
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ..errors import MissingExtraError, SkalError, UsageError
from .learning import Learner, Task
from .previews import LARGE, SMALL, Preview, Previews
from .project import LabelProject, check_annotator, plain_text
from .rounds import NothingToUndoError, Rounds

try:
    import uvicorn
    from jinja2 import Environment, FileSystemLoader
    from starlette.applications import Starlette
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    package = str(error.name).partition(".")[0]
    raise MissingExtraError(package, "label", "skal label") from error

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
LARGEST_BODY = 2**20
LARGEST_GRID = 200
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

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
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _on_http_error, SkalError: _on_error}
    for suffix, kind in MEDIA_TYPES.items():  # a system's own table may say otherwise
        mimetypes.add_type(kind, suffix)
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.add_middleware(Guard, token=token, port=port, hosts=frozenset(hosts))
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
        content = self._template.render(project=plain_text(self._project.name))
        return HTMLResponse(content, headers={"Cache-Control": "no-store"})

    def state(self, request: Request) -> Response:
        return _json(self._state(_annotator(request.query_params.get("as"))))

    def grid(self, request: Request) -> Response:
        text = request.query_params.get("n", "48")
        if not (text.isdecimal() and 0 < int(text[:9]) <= LARGEST_GRID):
            raise UsageError(f"n: got {text[:20]!r}; expected a number from 1 to {LARGEST_GRID}")
        images = self._rounds.grid(_annotator(request.query_params.get("as")), int(text))
        self._rounds.previews.prepare(images, SMALL)
        return _json({"images": [self._rounds.describe(image) for image in images]})

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

    def _act(self, body: Mapping[str, Any]) -> Response:
        annotator, many = _annotator(body.get("as")), "actions" in body
        answers = body["actions"] if many else [body]
        if not (isinstance(answers, list) and all(isinstance(a, dict) for a in answers)):
            raise UsageError("actions: expected a list of objects")
        ids = self._rounds.act(annotator, answers, body.get("key"))
        told = {"ids": ids} if many else {"id": ids[0]}
        return _json({**told, "state": self._state(annotator)})

    def _undo(self, body: Mapping[str, Any]) -> Response:
        annotator = _annotator(body.get("as"))
        undone = self._rounds.undo(annotator, body.get("key"))
        told = {"image": undone.image, "action": undone.action, "label": undone.label}
        return _json({"undone": told, "state": self._state(annotator)})

    def _state(self, annotator: str) -> dict[str, Any]:
        state = self._rounds.state(annotator)
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


def _annotator(name: Any) -> str:
    if name is not None and not isinstance(name, str):
        raise UsageError("as: expected a name")
    return check_annotator("me" if name is None else name)


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
        _log.error("%s", error)
        status = 500
    return JSONResponse({"error": str(error)}, status, {"Cache-Control": "no-store"})


class Guard:
    """Lets in who asks by the server's own name, from its own page, and knows the token.

    Parameters
    ----------
    app : ASGI application
        What is guarded.
    token, port, hosts
        See `make_app`.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, hosts: Collection[str]) -> None:
        self._app = app
        self._token = token.encode()
        self._port = port
        self._hosts = hosts
        # cookies know no ports: that of another project must not take the place of this one
        self._cookie = f"skal-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse to."""
        if scope["type"] != "http":
            return

        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith("/static"):
                    headers["Cache-Control"] = "no-cache"
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        answer: ASGIApp = self._app
        if refusal:
            answer = JSONResponse({"error": refusal}, 403, {"Cache-Control": "no-store"})
        elif scope["path"] == "/" and self._is_token(_query(scope).get("token", "")):
            answer = self._welcome(scope, headers)
        elif not self._has_cookie(headers):
            text = "this page needs its token: open the address that skal label printed"
            answer = JSONResponse({"error": text}, 403, {"Cache-Control": "no-store"})
        try:
            await answer(scope, receive, send_guarded)
        except Exception as error:  # a defect: told as one line there, and in full here
            _log.exception("a request could not be answered")
            if started:
                raise
            text = f"{type(error).__name__}: {error}"
            await JSONResponse({"error": text}, 500)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
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

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(errors="replace"), self._token)

    def _has_cookie(self, headers: Headers) -> bool:
        cookies = SimpleCookie()
        with suppress(CookieError):
            cookies.load(headers.get("cookie", ""))
        return self._cookie in cookies and self._is_token(cookies[self._cookie].value)

    def _welcome(self, scope: Scope, headers: Headers) -> ASGIApp:
        """Give the cookie and lead to the address without the token."""
        rest = urlencode({k: v for k, v in _query(scope).items() if k != "token"})
        cookie = f"{self._cookie}={self._token.decode()}; HttpOnly; SameSite=Strict; Path=/"
        headers_given = {"Set-Cookie": cookie, "Cache-Control": "no-store"}
        if headers.get("sec-fetch-site") != "cross-site":
            return RedirectResponse(f"/?{rest}" if rest else "/", 303, headers_given)

        # a strict cookie is not sent where another site's link leads to, redirects included
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_with_cookie(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message)["Set-Cookie"] = cookie
                await send(message)

            await self._app(scope, receive, send_with_cookie)

        return answer


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


class PortTakenError(UsageError):
    """Another program listens there."""


def listen(host: str, port: int) -> socket.socket:
    """Bind to an address.

    Parameters
    ----------
    host : str
        A name or an address.
    port : int
        0 for any that is free.

    Raises
    ------
    PortTakenError, UsageError
        If it cannot be bound to.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host: there is no {host!r} here ({error})") from error
    try:
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        reason = f"{host}, port {port}: {error.strerror or error}"
        raise PortTakenError(f"cannot listen on {reason}; name another by --port") from error
    return bound


def names_of(host: str) -> set[str]:
    """Return the names that a server bound to a host may be asked by."""
    names = {*LOOPBACK, host.lower() if ":" not in host else f"[{host.lower()}]"}
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:  # bound to all addresses of the machine
            names |= {"*", socket.gethostname().lower(), socket.getfqdn().lower()}
    return names


def serve(
    project: LabelProject,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    suggest: bool = False,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the page until Ctrl-C.

    Parameters
    ----------
    project : LabelProject
        What is labelled; left open.
    host : str
        Where to listen: by default for this machine alone.
    port : int
        0 for any that is free.
    suggest : bool
        Whether the network's guesses may be asked for.
    on_ready : callable
        Takes the address with the token, once requests are answered.

    Raises
    ------
    UsageError
        If that place is taken.
    """
    bound = listen(host, port)
    port = bound.getsockname()[1]
    token = secrets.token_urlsafe(32)
    shown = "127.0.0.1" if "*" in names_of(host) else host
    shown = f"[{shown}]" if ":" in shown else shown
    previews = Previews(project.root, project.paths)
    rounds = Rounds(project, previews)
    app = make_app(
        project, token=token, suggest=suggest, rounds=rounds, port=port, hosts=names_of(host)
    )
    # Pillow warns of odd metadata and large images; who looks at them sees what counts
    warnings.filterwarnings("ignore", module="PIL")
    learner = Learner(Task.of(project), rounds.on_answer, rounds.on_failure)
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
        # the socket listens already: who comes before the first turn of the loop waits
        on_ready(f"http://{shown}:{port}/?token={token}")
        with suppress(KeyboardInterrupt):
            server.run(sockets=[bound])
    finally:
        learner.stop()
        previews.close()
        bound.close()


class _Server(uvicorn.Server):
    """Uvicorn's, that says when it has begun."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()
