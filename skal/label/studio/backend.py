"""`skal serve`: the protocol of Label Studio's machine-learning backends, as of version 1.23."""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from ...core.errors import MissingExtraError
from ..web.address import LOOPBACK, names_of
from .answers import Answer
from .models import Model, NotReadyError
from .tasks import MODEL_VERSION, Question, choice_of

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import Headers
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send

    from ..web.requests import json_body, refusal
    from ..web.running import run_app
except ImportError as error:
    package = str(error.name).partition(".")[0]
    raise MissingExtraError(package, "label", "skal serve") from error

LARGEST_BODY = 2**26
"""Bytes, enough for hundreds of tasks with their annotations."""
PORT = 9090

_log = logging.getLogger("skal")


def make_app(model: Model, *, port: int = PORT, hosts: Collection[str] = LOOPBACK) -> ASGIApp:
    """Make the application; `hosts` are its allowed host names, as in `refusal`."""

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "UP", "model_class": MODEL_VERSION})

    async def setup(request: Request) -> Response:
        await json_body(request, LARGEST_BODY)
        return JSONResponse({"model_version": MODEL_VERSION})

    async def versions(request: Request) -> Response:
        return JSONResponse({"versions": [MODEL_VERSION]})

    async def answer(request: Request) -> Response:
        body = await json_body(request, LARGEST_BODY)
        return JSONResponse({"results": await run_in_threadpool(predict, model, body)})

    async def hear(request: Request) -> Response:
        body = await json_body(request, LARGEST_BODY)
        await run_in_threadpool(model.hear, body)
        return JSONResponse({"status": "ok"}, 201)

    app = Starlette(
        routes=[
            Route("/", health),
            Route("/health", health),
            Route("/setup", setup, methods=["POST"]),
            Route("/versions", versions),
            Route("/predict", answer, methods=["POST"]),
            Route("/webhook", hear, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _on_http_error, NotReadyError: _on_not_ready},
    )

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        reason = refusal(scope, Headers(scope=scope), port, hosts)
        response = app if reason is None else JSONResponse({"error": reason}, 403)
        await response(scope, receive, send)

    return guarded


def predict(model: Model, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a prediction for each task, in order; an empty one if nothing is known."""
    tasks = asked.get("tasks")
    if not isinstance(tasks, list):
        raise HTTPException(400, "tasks: expected a list")
    answers, question = model.answers(), Question.of(asked.get("label_config"))
    images = model.images_of(tasks, question.field)
    return [_prediction(answers.of(image), question) for image in images]


def _prediction(answer: Answer, question: Question) -> dict[str, Any]:
    label, result = answer.label, []
    if label is not None and (question.classes is None or label in question.classes):
        choice = choice_of(label, question.from_name, question.to_name)
        result.append({**choice, "score": round(answer.probability, 6)})
    return {"result": result, "score": answer.score, "model_version": MODEL_VERSION}


def serve(model: Model, listening: socket.socket, host: str) -> None:
    """Serve Label Studio under a host's name until Ctrl-C."""
    port = int(listening.getsockname()[1])
    _log.info(
        "serving a model for Label Studio at http://%s:%d; connect it under the name %r; Ctrl-C "
        "stops it",
        f"[{host}]" if ":" in host else host,
        port,
        MODEL_VERSION,
    )
    warnings.filterwarnings("ignore", module="PIL")
    run_app(make_app(model, port=port, hosts=names_of(host)), listening)


def _on_http_error(request: Request, error: Any) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _on_not_ready(request: Request, error: Any) -> Response:
    """Answer so that Label Studio stores nothing and asks again."""
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": "5"})
