"""The video endpoints of OpenAI's API for a syncflow model: their client works with it as it is.

A clip is a job: ``POST /v1/videos`` answers at once, ``GET /v1/videos/ID`` tells how far it is, and
``GET /v1/videos/ID/content`` hands over the mp4. FastAPI is the extra ``serve``.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Literal, cast, get_args

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncflow.json_types import JsonObject
from syncflow.ranges import SEED, Real, Whole
from syncflow.serving.forms import UPLOAD, fields_of, kept
from syncflow.serving.jobs import KEPT_SECONDS, Full, Job, Jobs, Status
from syncflow.serving.jobs import Request as Asked
from syncflow.serving.maker import MOST_SECONDS, Maker

#: Bytes of a request with its upload.
MOST_BYTES = 64 << 20
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


_Moment = Annotated[float, Real(0, MOST_SECONDS, "s")]


class VideoRequest(BaseModel):
    """``POST /v1/videos``. Fields below ``size`` are syncflow's own (``extra_body`` in the client);
    what is left out is as the model's folder says."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str = Field("", max_length=4000, description="what happens, in one sentence")
    model: str | None = Field(None, max_length=200, description="the served model's name")
    seconds: Annotated[float, Real(0, MOST_SECONDS, "s", above=True)] | None = Field(
        None, description="length in seconds"
    )
    size: str | None = Field(None, max_length=11, description="WIDTHxHEIGHT in pixels")
    seed: Annotated[int, SEED] = Field(0, description="the same seed gives the same clip")
    steps: Annotated[int, Whole(1, 1000, "steps")] | None = Field(None, description="solver steps")
    guidance: Annotated[float, Real(0, 100)] | None = Field(None, description="guidance strength")
    negative_prompt: str | None = Field(None, max_length=4000)
    negative_audio_prompt: str | None = Field(None, max_length=4000)
    audio_takes: Annotated[int, Whole(1, 8, "takes")] = Field(
        1, description="soundtracks drawn; the best is kept"
    )
    contacts: Annotated[list[_Moment], Field(max_length=64)] | None = Field(
        None, description="when things touch, in seconds; in a form with commas between"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, fields: Mapping[str, object]) -> dict[str, object]:
        """A form has texts alone, and OpenAI's seconds are one in JSON too."""
        kinds: dict[str, Callable[[str], object]] = {
            "seconds": float,
            "guidance": float,
            "seed": int,
            "steps": int,
            "audio_takes": int,
            "contacts": lambda text: [float(part) for part in text.split(",")],
        }
        read = dict(fields)
        for name, kind in kinds.items():
            if isinstance(text := read.get(name), str):
                with suppress(ValueError):  # which is told as what it is
                    read[name] = kind(text)
        if isinstance(times := read.get("contacts"), list):  # a field of a form for each
            with suppress(ValueError):
                read["contacts"] = [float(t) if isinstance(t, str) else t for t in times]
        return read


def app(
    maker: Maker,
    *,
    api_key: str | None = None,
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]"),
    most_waiting: int = 16,
    kept_seconds: float = KEPT_SECONDS,
    most_bytes: int = MOST_BYTES,
) -> FastAPI:
    """The application, to be run by any ASGI server.

    Args:
        maker: makes the clips.
        api_key: what clients must send as a bearer token; None = nothing.
        hosts: names by which the server may be addressed, "*" = any. It keeps pages of other sites
            from reaching a server on this machine through a name of theirs.
        most_waiting: clips that may wait; one more is answered with 429.
        kept_seconds: how long a clip is kept.
        most_bytes: of a request.
    """
    jobs = Jobs(maker, most_waiting, kept_seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(jobs.close)

    api = FastAPI(title="syncflow", docs_url=None, redoc_url=None, lifespan=lifespan)
    api.state.jobs = jobs
    registry = CollectorRegistry()
    requests = Counter("syncflow_requests", "Requests by answer", ["code"], registry=registry)
    for status in get_args(Status):
        gauge = Gauge(f"syncflow_jobs_{status}", f"Clips that are {status}", registry=registry)
        gauge.set_function(partial(jobs.count, status))

    api.add_middleware(_Limit, most_bytes=most_bytes)

    @api.middleware("http")
    async def guard(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = _refusal(request, api_key, hosts) or await call(request)
        requests.labels(response.status_code).inc()
        return response

    @api.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail), headers=error.headers)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _error(400, _first(error.errors()))

    @api.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @api.get("/v1/models")
    def models() -> JsonObject:
        model = {"id": maker.name, "object": "model", "created": 0, "owned_by": "syncflow"}
        return {"object": "list", "data": [model]}

    @api.post("/v1/videos")
    async def create(request: Request) -> JSONResponse:
        fields, upload = await fields_of(request)
        try:
            asked = VideoRequest.model_validate(fields)
        except ValidationError as error:
            return _error(400, _first(error.errors()))
        if asked.model not in (None, maker.name):
            return _error(404, f"this server serves {maker.name!r}, not {asked.model!r}")
        try:
            width, height = _width_height(asked.size)
            folder = jobs.room()
        except ValueError as error:
            return _error(400, str(error))
        except Full as error:
            return _error(429, str(error), headers={"Retry-After": "10"})
        try:
            given = await kept(upload, folder)
            wanted = cast(Asked, asked.model_dump(exclude={"model", "size"}, exclude_none=True))
            if width and height:
                wanted |= {"width": width, "height": height}
            # What cannot be made is refused now and not by a job that fails.
            await run_in_threadpool(maker.check, wanted, given)
            job = jobs.add({**wanted, "given": given}, folder)
        except BaseException as error:  # a client that hangs up as well
            shutil.rmtree(folder, ignore_errors=True)
            if not isinstance(error, (ValueError, OSError, Full)):
                raise
            if isinstance(error, Full):
                return _error(429, str(error), headers={"Retry-After": "10"})
            # The client knows the file by the field's name, and nothing of folders here.
            told = str(error).replace(f"'{folder / 'given'}'", UPLOAD)
            return _error(400, " ".join(told.split()))
        return JSONResponse(_told(job, maker, kept_seconds))

    @api.get("/v1/videos")
    def listed(
        limit: int = 20, after: str | None = None, order: Literal["asc", "desc"] = "desc"
    ) -> JsonObject:
        known = jobs.all() if order == "asc" else jobs.all()[::-1]
        ids = [job.id for job in known]
        begin = ids.index(after) + 1 if after in ids else 0
        limit = min(max(1, limit), 100)
        shown = [_told(job, maker, kept_seconds) for job in known[begin : begin + limit]]
        return {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(known) > begin + limit,
        }

    def found(id: str) -> Job:
        job = jobs.get(id)
        if job is None:
            raise HTTPException(404, f"no video {id[:80]!r}; it may be older than an hour")
        return job

    @api.get("/v1/videos/{id}")
    def retrieve(id: str) -> JsonObject:
        return _told(found(id), maker, kept_seconds)

    @api.delete("/v1/videos/{id}")
    def delete(id: str) -> JsonObject:
        """Of a clip that waits or is being made: cancels it."""
        found(id)
        jobs.remove(id)
        return {"id": id, "object": "video.deleted", "deleted": True}

    @api.get("/v1/videos/{id}/content")
    def content(id: str, variant: Literal["video", "thumbnail", "audio"] = "video") -> FileResponse:
        job = found(id)
        if job.file is None:
            why = job.error if job.status == "failed" else f"it is {job.status}"
            raise HTTPException(409, f"the video is not there: {why}")
        path, kind = {
            "video": (job.file, "video/mp4"),
            "thumbnail": (job.file.with_suffix(".webp"), "image/webp"),
            "audio": (job.file.with_suffix(".wav"), "audio/wav"),
        }[variant]
        return FileResponse(path, media_type=kind, filename=path.name)

    return api


def serve(
    maker: Maker, host: str = "127.0.0.1", port: int = 8000, api_key: str | None = None
) -> None:
    """Serves until interrupted; on this machine alone unless ``host`` says otherwise."""
    import uvicorn

    local = host in ("127.0.0.1", "localhost", "::1")
    hosts = ("127.0.0.1", "localhost", "[::1]") if local else ("*",)
    application = app(maker, api_key=api_key, hosts=hosts)
    config = uvicorn.Config(
        application, host=host, port=port, log_level="warning", limit_concurrency=128
    )
    print(f"http://{host}:{port}/v1 (Ctrl-C stops it)", flush=True)
    uvicorn.Server(config).run()


def _refusal(request: Request, api_key: str | None, hosts: tuple[str, ...]) -> JSONResponse | None:
    """The answer to those who may not ask."""
    host = request.headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if "*" not in hosts and name not in hosts:
        return _error(403, f"this server does not answer to the name {name[:80]!r}")
    origin = request.headers.get("origin")
    if origin is not None and origin.split("//")[-1] != host:
        return _error(403, "pages of other sites may not use this server")
    if api_key is not None and request.url.path.startswith("/v1/"):
        sent = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not secrets.compare_digest(sent.encode(), api_key.encode()):
            return _error(401, "wrong or missing API key: send it as a bearer token")
    return None


class _Limit:
    """Ends a request whose body is larger than ``most_bytes``, stated or not."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self.app, self.most = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.most:
                raise HTTPException(413, f"a request may have {self.most:,} bytes")
            return message

        await self.app(scope, counted, send)


def _width_height(size: str | None) -> tuple[int | None, int | None]:
    if size is None:
        return None, None
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError(f"size must be WIDTHxHEIGHT in pixels, got {size!r}")
    return int(match[1]), int(match[2])


def _told(job: Job, maker: Maker, kept_seconds: float) -> JsonObject:
    """A job as OpenAI's client reads it."""
    asked, done = job.request, job.completed
    width, height, seconds = maker.shape(asked)
    return {
        "id": job.id,
        "object": "video",
        "model": maker.name,
        "status": job.status,
        "progress": job.progress,
        "created_at": int(job.created),
        "completed_at": None if done is None else int(done),
        "expires_at": None if done is None else int(done + kept_seconds),
        "size": f"{width}x{height}",
        "seconds": f"{seconds:g}",
        "prompt": asked.get("prompt"),
        "error": None if job.error is None else {"code": "failed", "message": job.error},
    }


def _first(errors: Sequence[ErrorDetails]) -> str:
    """The first thing that is wrong, with its field."""
    error = errors[0]
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    return JSONResponse({"error": error}, status, dict(headers) if headers else None)
