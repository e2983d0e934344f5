"""The page's application for one project, and the server that runs it."""

from __future__ import annotations

import logging
import mimetypes
import shlex
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from string import Template
from threading import Event
from typing import Any

from ...core.errors import MissingExtraError, SkalError, UsageError
from ...core.text import plain_text
from ..answers import check_key, is_whole
from ..finishing import Finish
from ..image_map import ImageMap
from ..kept_classes import ClassEdits
from ..learning import Ask, Learner, LearnerSetup
from ..names import check_annotator
from ..previews import FULL, LARGE, SMALL, Preview
from ..review import Review
from ..service import LabelService, NothingToUndoError
from ..watching import Watch
from .address import LOOPBACK, Address, names_of

try:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    from .guard import NAME, Guard
    from .requests import json_body
    from .running import run_app
except ImportError as error:
    package = str(error.name).partition(".")[0]
    raise MissingExtraError(package, "label", "skal label") from error

HERE = Path(__file__).parent
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
LARGEST_BODY = 2**20
LARGEST_GRID = 200
SIDES = (("images", LARGE), ("thumbs", SMALL), ("full", FULL))
PRELOADS = "\n".join(
    f'<link rel="modulepreload" href="/static/{module.name}">'
    for module in sorted((HERE / "static").glob("*.js"))
)
"""Loads all modules at once, instead of each when an importing one was read."""
TEMPLATE = Template((HERE / "templates/index.html").read_text("utf-8"))
UNSTORED = {"Cache-Control": "no-store"}

_log = logging.getLogger("skal")

Asked = Mapping[str, Any]
"""The fields of a request's body, or of its query string."""
View = Callable[[Asked], dict[str, Any]]


def make_app(
    service: LabelService,
    *,
    token: str,
    suggest: bool = False,
    port: int = 80,
    hosts: Collection[str] = LOOPBACK,
    ask: Ask | None = None,
    beside: Ask | None = None,
    seen: Event | None = None,
) -> Starlette:
    """Make the application of a project. A GET writes nothing: images are handed out by POST.

    The `token` gives access. `port` and `hosts` are those of the address, as in `refusal`. `ask` of
    a `Learner` computes doubts, and `beside` of another one maps and exports; `seen` is set when an
    image was sent.
    """
    views = Review(service, ask), ImageMap(service, beside), Finish(service, beside)
    page = _Page(service, *views, suggest, seen or Event())
    routes = [
        Route("/", page.index),
        Route("/api/guess/{number:int}", page.guess),
        *(Route(f"/{name}/{{number:int}}", partial(page.image, side)) for name, side in SIDES),
        *(
            _route(look, "GET")
            for look in (page.state, page.review, page.rows, page.map, page.finish)
        ),
        *(
            _route(deed, "POST")
            for deed in (
                *(page.next, page.grid, page.actions, page.classes, page.undo, page.leave),
                *(page.doubts, page.layout, page.make),
            )
        ),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _on_http_error, SkalError: _on_error}
    for suffix, kind in MEDIA_TYPES.items():  # overrides the system's table
        mimetypes.add_type(kind, suffix)
    app = Starlette(routes=routes, exception_handlers=handlers)
    project = service.project.id
    app.add_middleware(Guard, token=token, port=port, hosts=frozenset(hosts), project=project)
    return app


@dataclass(frozen=True)
class _Page:
    _service: LabelService
    _review: Review
    _map: ImageMap
    _finish: Finish
    _suggest: bool
    _seen: Event

    def index(self, request: Request) -> Response:
        project = self._service.project
        own = request.scope[NAME]  # a personal token fixes the name
        content = TEMPLATE.substitute(
            preloads=PRELOADS,
            project=escape(plain_text(project.name)),
            id=escape(project.id),
            folder=escape(shlex.quote(plain_text(str(project.root)))),
            own=escape(own),
            hides_own="" if own else " hidden",
            hides_chosen=" hidden" if own else "",
        )
        return HTMLResponse(content, headers=UNSTORED)

    def state(self, asked: Asked) -> dict[str, Any]:
        state = self._service.state(_annotator(asked), window=check_key(asked.get("window")))
        self._service.previews.prepare([entry["image"] for entry in state["queue"]], LARGE)
        recent = self._review.recent(_annotator(asked))
        return {**state, "recent": recent, "suggest": self._suggest}

    def review(self, asked: Asked) -> dict[str, Any]:
        return self._review.find(asked)

    def rows(self, asked: Asked) -> dict[str, Any]:
        numbers = asked.get("images", "").split(",")
        if not all(n.isdecimal() and len(n) < 12 for n in numbers) or len(numbers) > LARGEST_GRID:
            raise UsageError(f"images: expected at most {LARGEST_GRID} numbers, with commas")
        return {"rows": self._review.rows(map(int, numbers))}

    def doubts(self, asked: Asked) -> dict[str, Any]:
        self._review.ask()
        return self._review.find(asked)

    def map(self, asked: Asked) -> dict[str, Any]:
        state = {"state": self._map.state}
        return state if "state" in asked else self._map.look(suggest=self._suggest)

    def layout(self, asked: Asked) -> dict[str, Any]:
        self._map.ask()
        return {"state": self._map.state}

    def finish(self, asked: Asked) -> dict[str, Any]:
        return self._finish.look()

    def make(self, asked: Asked) -> dict[str, Any]:
        self._finish.ask(asked.get("what"), asked.get("where"))
        return self._finish.look()

    def next(self, asked: Asked) -> dict[str, Any]:
        is_grid, window = asked.get("grid") is True, check_key(asked.get("window"))
        self._service.next(_annotator(asked), grid=is_grid, window=window)
        return self.state(asked)

    def grid(self, asked: Asked) -> dict[str, Any]:
        n = asked.get("n", 48)
        if not (is_whole(n) and 0 < n <= LARGEST_GRID):
            raise UsageError(f"n: got {n!r:.20}; expected a number from 1 to {LARGEST_GRID}")
        among = _list_of(asked, "among", is_whole, "numbers of images")
        images = self._service.grid(_annotator(asked), n, among)
        self._service.previews.prepare(images, SMALL)
        described = [self._service.describe(image) for image in images]
        return {"images": described, "state": self.next({**asked, "grid": True})}

    def actions(self, asked: Asked) -> dict[str, Any]:
        many = "actions" in asked
        given = asked if many else {"actions": [asked]}
        answers = _list_of(given, "actions", lambda one: isinstance(one, dict), "objects")
        is_grid = asked.get("grid") is True
        ids = self._service.act(_annotator(asked), answers, asked.get("key"), grid=is_grid)
        return {**({"ids": ids} if many else {"id": ids[0]}), "state": self.next(asked)}

    def classes(self, asked: Asked) -> dict[str, Any]:
        keys = _by_number(asked, "keys", lambda key: isinstance(key, str))
        into = _by_number(asked, "into", lambda n: n is None or is_whole(n))
        names = _by_number(asked, "names", lambda name: isinstance(name, str))
        new = _list_of(asked, "new", lambda name: isinstance(name, str), "names")
        self._service.edit_classes(ClassEdits(keys, into, names, new))
        return {"state": self.next(asked)}

    def undo(self, asked: Asked) -> dict[str, Any]:
        keys = asked.get("key"), asked.get("undoes"), check_key(asked.get("window"))
        undone = self._service.undo(_annotator(asked), *keys)
        number = self._service.project.class_list.number_of
        images = [{"image": a.image, "action": a.action, "label": number(a.label)} for a in undone]
        return {"undone": images, "state": self.next(asked)}

    def leave(self, asked: Asked) -> dict[str, Any]:
        self._service.leave(_annotator(asked), check_key(asked.get("window")))
        return {}

    def guess(self, request: Request) -> Response:
        if not self._suggest:
            raise HTTPException(404, "predictions are shown only with --suggest")
        image = request.path_params["number"]
        proba = self._service.guess(image)
        if proba is None:
            raise HTTPException(404, "there is no prediction for this image yet")
        label = int(proba.argmax())
        values, why = [round(float(p), 6) for p in proba], self._service.why(image, named=True)
        number = self._service.project.class_list.number_of(label)
        return _json({"label": number, "probability": values[label], "proba": values, "why": why})

    def image(self, side: int, request: Request) -> Response:
        number = request.path_params["number"]
        if number not in self._service.project.paths:
            raise HTTPException(404, f"there is no image {number}")
        try:
            preview = self._service.previews.get(number, side)
        except (OSError, ValueError) as error:
            raise HTTPException(404, f"image {number} cannot be read") from error
        response = _conditional(request, preview)
        if not self._seen.is_set():
            response.background = BackgroundTask(self._seen.set)
        return response


def _route(view: View, method: str) -> Route:
    """Return the route to a view, which runs in a thread because it may wait for the disk."""

    async def answer(request: Request) -> Response:
        is_post = method == "POST"
        said = await json_body(request, LARGEST_BODY) if is_post else request.query_params
        return _json(await run_in_threadpool(view, _as_one_self(request, said)))

    return Route(f"/api/{view.__name__}", answer, methods=[method])


def _as_one_self(request: Request, asked: Asked) -> Asked:
    """Return a request's fields with the name of its token; refuse another name."""
    own = request.scope[NAME]
    if own and asked.get("as", own) != own:
        message = f"this address belongs to {own!r}; use your own to label under another name"
        raise HTTPException(403, message)
    return {**asked, "as": own} if own else asked


def _list_of(asked: Asked, name: str, fits: Callable[[Any], bool], what: str) -> list[Any]:
    said = asked.get(name, [])
    if not (isinstance(said, list) and all(map(fits, said))):
        raise UsageError(f"{name}: expected a list of {what}")
    return said


def _by_number(asked: Asked, name: str, fits: Callable[[Any], bool]) -> dict[int, Any]:
    """Return a field that maps class numbers to values."""
    said = asked.get(name, {})
    is_valid = isinstance(said, dict) and all(
        n.isdecimal() and len(n) < 10 and fits(value) for n, value in said.items()
    )
    if not is_valid:
        raise UsageError(f"{name}: expected an object with class numbers as names")
    return {int(number): value for number, value in said.items()}


def _annotator(asked: Asked) -> str:
    name = asked.get("as")
    if name is not None and not isinstance(name, str):
        raise UsageError("as: expected a name")
    return check_annotator("me" if name is None else name)


def _json(content: Mapping[str, Any]) -> Response:
    return JSONResponse(content, headers=UNSTORED)


def _conditional(request: Request, preview: Preview) -> Response:
    headers = {
        "ETag": f'"{preview.tag}"',
        "Cache-Control": "private, max-age=86400, immutable",
        # another project at this address uses the same numbers, but another cookie
        "Vary": "Cookie",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(preview.content, media_type=preview.media_type, headers=headers)


def _on_http_error(request: Request, error: Any) -> Response:
    headers = {**(error.headers or {}), **UNSTORED}
    return JSONResponse({"error": error.detail}, error.status_code, headers)


def _on_error(request: Request, error: Any) -> Response:
    """Answer with the error's line; only a UsageError is the client's error."""
    status = 409 if isinstance(error, NothingToUndoError) else 400
    if not isinstance(error, UsageError):
        _log.error("%s", error, exc_info=error)
        status = 500
    return JSONResponse({"error": str(error)}, status, UNSTORED)


def serve(service: LabelService, address: Address, *, suggest: bool = False) -> None:
    """Serve the page until Ctrl-C, including requests that came before; keep the project open."""
    # Pillow warns of odd metadata and large images, but people see the images themselves
    warnings.filterwarnings("ignore", module="PIL")
    setup, seen = service.project.learner_setup(), Event()
    learner, beside = Learner(setup, seen), Learner(setup)  # so that batches need not wait
    app = make_app(
        service,
        token=address.token,
        suggest=suggest,
        port=address.port,
        hosts=names_of(address.host),
        ask=learner.ask,
        beside=beside.ask,
        seen=seen,
    )
    watch = Watch(setup.root, setup.files, service.take_files, pages=setup.config.pages)

    def renew(setup: LearnerSetup) -> None:
        learner.renew(setup)
        beside.renew(setup)

    def start() -> None:
        service.start(learner.ask, renew)
        watch.start()

    try:
        run_app(app, address.socket, on_start=start)
    finally:
        watch.stop()
        learner.stop()
        beside.stop()
        service.previews.close()
