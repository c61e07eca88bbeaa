"""The voting page: HTTP around ``store``.

A rater's secret link is the only key; there is no cookie, so no other site can vote in a rater's
name, and no page that lists anything.
"""

import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .store import (
    AlreadyVoted,
    Refused,
    StudyError,
    Vote,
    can_see,
    find_next_question,
    find_rater,
    open_study,
    record_vote,
)

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PAGE = Path(__file__).parent / "page"
_ASSETS = {"page.css": "text/css", "page.js": "text/javascript"}
_MAX_VOTE_BYTES = 10_000  # a vote on eight clips has 500
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "media-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
    "referrer-policy": "no-referrer",  # the address is the key
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_NO_SUCH_LINK = (
    "This is not a valid link of a study. Please open the personal link that you were sent."
)


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve the study until interrupted. ``on_ready`` is called before the first request is taken.

    host: 127.0.0.1 is this machine alone; 0.0.0.0 is the whole network, unencrypted: put a proxy
    with TLS before it. StudyError where ``folder`` holds no study, or the extra ``study`` is not
    installed.
    """
    with open_study(folder):
        pass  # say at once what is wrong
    app = make_application(folder)
    import uvicorn

    # No access log: it would hold the raters' links.
    config = uvicorn.Config(
        app, host=host, port=port, access_log=False, log_level="warning", server_header=False
    )
    with _listen(host, port) as listener, suppress(KeyboardInterrupt):
        on_ready()
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """A socket at this address, before anybody is told of it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StudyError(
            f"{host}:{port} cannot be served ({error.strerror}); is it in use? give another --port "
            "or --host"
        ) from error
    return listener


def make_application(folder: Path) -> "Starlette":
    """The study in ``folder`` as an ASGI application."""
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.routing import Route
    except ImportError as error:
        raise StudyError(
            f"the page needs Starlette and uvicorn ({error}); pip install 'lipsync-core[study]'"
        ) from error
    routes = [
        Route("/s/{token}", _page),
        Route("/s/{token}/task", _task),
        Route("/s/{token}/vote", _vote, methods=["POST"]),
        Route("/s/{token}/media/{media}", _media),
        Route("/page/{name}", _asset),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(_add_headers)])
    app.state.folder = folder
    return app


def _add_headers(app: "ASGIApp") -> Callable[..., Awaitable[None]]:
    """Middleware: the security headers on every answer that does not say otherwise."""
    from starlette.datastructures import MutableHeaders

    async def wrapped(scope: "Scope", receive: "Receive", send: "Send") -> None:
        async def send_with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await app(scope, receive, send_with_headers)

    return wrapped


def _page(request: "Request") -> "Response":
    from starlette.responses import FileResponse

    _rater(request)
    return FileResponse(_PAGE / "page.html", media_type="text/html; charset=utf-8")


def _asset(request: "Request") -> "Response":
    from starlette.responses import FileResponse, PlainTextResponse

    name = request.path_params["name"]
    if name not in _ASSETS:
        return PlainTextResponse("Not found", 404)
    return FileResponse(
        _PAGE / name, media_type=_ASSETS[name], headers={"cache-control": "no-cache"}
    )


def _task(request: "Request") -> "Response":
    from starlette.responses import JSONResponse

    rater = _rater(request)
    with open_study(_folder(request)) as db:
        (title,) = db.execute("SELECT title FROM study").fetchone()
        question = find_next_question(db, rater)
    if question is None:
        return JSONResponse({"title": title, "finished": True})
    return JSONResponse(
        {
            "title": title,
            "finished": False,
            "task": question.task,
            "media": question.media,
            "done": question.done,
            "total": question.total,
        }
    )


def _media(request: "Request") -> "Response":
    """A clip, whole or the ranges that the browser asks for.

    Its name comes from the database, never from the address.
    """
    from starlette.responses import FileResponse, PlainTextResponse

    rater, media = _rater(request), request.path_params["media"]
    with open_study(_folder(request)) as db:
        seen = can_see(db, rater, media)
    if not seen:
        return PlainTextResponse("Not found", 404)
    path = _folder(request) / "media" / f"{media}.mp4"
    return FileResponse(
        path, media_type="video/mp4", headers={"cache-control": "private, max-age=86400"}
    )


async def _vote(request: "Request") -> "Response":
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, PlainTextResponse

    # Forms of other sites cannot send this type, and browsers say where a request comes from.
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        return PlainTextResponse("Wanted application/json", 415)
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return PlainTextResponse("Votes come from the study's own page", 403)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_VOTE_BYTES:
            return PlainTextResponse("Too long", 413)
    status, answer = await run_in_threadpool(_save_vote, request, body)
    return JSONResponse(answer, status)


def _save_vote(request: "Request", body: bytes) -> tuple[int, Mapping[str, str]]:
    """(HTTP status, answer). The vote is on the disk when this returns 200."""
    rater = _rater(request)
    try:
        task, vote = _parse_vote(body)
        with open_study(_folder(request), writing=True) as db:
            return 200, {"vote": record_vote(db, rater, task, vote)}
    except Refused as error:
        return 403, {"error": str(error)}
    except AlreadyVoted as error:
        return 409, {"error": str(error)}
    except ValueError as error:
        return 400, {"error": str(error)}


def _parse_vote(body: bytes) -> tuple[str, Vote]:
    """(task, vote) of a JSON object.

    ValueError for anything else. Whether it is complete is for ``record_vote`` to say.
    """
    try:
        data: Any = json.loads(body)
        task, preferred, ratings = (
            data["task"],
            data["preferred"],
            [dict(r) for r in data["ratings"]],
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"the vote is unreadable ({error!r}); expected an object with task, preferred, ratings"
        ) from error
    if type(task) is not str:
        raise ValueError("the vote's task is not a text")
    return task, Vote(preferred, tuple(ratings))


def _folder(request: "Request") -> Path:
    return request.app.state.folder


def _rater(request: "Request") -> int:
    """Whose link this is; answers 404 to any other."""
    from starlette.exceptions import HTTPException

    with open_study(_folder(request)) as db:
        rater = find_rater(db, request.path_params["token"])
    if rater is None:
        raise HTTPException(404, _NO_SUCH_LINK)
    return rater
