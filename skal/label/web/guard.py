"""Access control of the page."""

from __future__ import annotations

import logging
from collections.abc import Collection
from urllib.parse import parse_qs, parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .requests import refusal
from .tokens import Tokens

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
PROJECT_HEADER = "x-skal-project"
"""Header with the id of the project that the requesting page belongs to."""
NAME = "skal.name"
NO_TOKEN = "this page needs its token: open the address that skal label printed"
LOCKED_OUT = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>skal label</title></head>
<body>
<h1>This page needs its whole address</h1>
<p>The address that <code>skal label</code> prints in the terminal ends with a token that gives you
access. Copy the whole line from there, or click it.</p>
<p>If the terminal is closed, open one and run this with your image folder:</p>
<pre>skal label FOLDER</pre>
<p>Saved labels are not lost.</p>
</body>
</html>
"""

_log = logging.getLogger("skal")


class Guard:
    """Passes requests to the server's own name, from its own page, and with a valid token.

    `scope[NAME]` is the name of the token; see `Tokens.whose`. Requests from pages of another
    project than `project` are refused.
    """

    def __init__(
        self, app: ASGIApp, token: str, port: int, hosts: Collection[str], project: str
    ) -> None:
        self._app = app
        self._tokens = Tokens(token)
        self._project = project
        self._own = port, hosts
        # cookies ignore ports: the cookie of another project must not replace this one
        self._cookie = f"skal-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if scope["path"].startswith("/static"):
                    headers["Cache-Control"] = "no-cache"
            await send(message)

        answer = self._answer_to(scope, Headers(scope=scope))
        try:
            await answer(scope, receive, send_guarded)
        except Exception as error:  # a bug: one line on the page, the traceback in the log
            text = f"{type(error).__name__}: {error}"
            _log.exception("cannot answer a request: %s", text)
            if started:
                raise
            await JSONResponse({"error": text}, 500)(scope, receive, send_guarded)

    def _answer_to(self, scope: Scope, headers: Headers) -> ASGIApp:
        """Return the application that answers a request: the page, or a refusal."""
        if reason := refusal(scope, headers, *self._own):
            return _error(reason, 403)
        given = _query(scope).get("token", "")
        name = self._tokens.whose(given) if scope["path"] == "/" else None
        if name is not None:
            scope[NAME] = name
            return self._welcome(scope, headers, given)
        scope[NAME] = self._name_of_cookie(headers)
        if scope[NAME] is None:
            if scope["path"] == "/":
                return HTMLResponse(LOCKED_OUT, 403, {"Cache-Control": "no-store"})
            return _error(NO_TOKEN, 403)
        if self._is_foreign(scope, headers):
            text = "this page belongs to another project than the one served here now"
            return _error(text, 409, foreign=True)
        return self._app

    def _is_foreign(self, scope: Scope, headers: Headers) -> bool:
        """Return whether the request comes from a page of another project."""
        if scope["path"].startswith("/api/"):
            return headers.get(PROJECT_HEADER) != self._project
        named = parse_qs(scope["query_string"].decode("latin-1")).get("project")
        return scope["path"] != "/" and named is not None and named != [self._project]

    def _name_of_cookie(self, headers: Headers) -> str | None:
        """Return the owner of the token in the cookies, parsed by RFC 6265; others are ignored."""
        cookies = (part.partition("=") for part in ";".join(headers.getlist("cookie")).split(";"))
        own = (value.strip() for name, _, value in cookies if name.strip() == self._cookie)
        return next((who for who in map(self._tokens.whose, own) if who is not None), None)

    def _welcome(self, scope: Scope, headers: Headers, token: str) -> ASGIApp:
        """Set the cookie and redirect to the address without the token."""
        rest = urlencode({k: v for k, v in _query(scope).items() if k != "token"})
        cookie = f"{self._cookie}={token}; HttpOnly; SameSite=Strict; Path=/"
        headers_given = {"Set-Cookie": cookie, "Cache-Control": "no-store"}
        if headers.get("sec-fetch-site") != "cross-site":
            return RedirectResponse(f"/?{rest}" if rest else "/", 303, headers_given)

        # browsers do not send a strict cookie after a link from another site, nor after redirects
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_with_cookie(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message)["Set-Cookie"] = cookie
                await send(message)

            await self._app(scope, receive, send_with_cookie)

        return answer


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _error(text: str, status: int, **more: object) -> JSONResponse:
    return JSONResponse({"error": text, **more}, status, {"Cache-Control": "no-store"})
