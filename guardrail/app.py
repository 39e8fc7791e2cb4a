"""Puts the parts together: settings and packs in, one ASGI application out. Nothing else constructs its collaborators.

Chat paths are looked up in a table and go straight to their endpoint; everything else is Starlette's routing.
"""

import asyncio
import gc
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import structlog
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from guardrail import check, config, logs
from guardrail.admission import Admission
from guardrail.audit.record import ExchangeRecord, Recorder
from guardrail.board import VARIABLE, Board
from guardrail.config import Settings
from guardrail.dashboard.people import Role
from guardrail.engine.guard import Guard
from guardrail.engine.reply import ReplyGuard, ReplyMemory
from guardrail.errors import CallerError, ConfigError, RequestTooLarge
from guardrail.monitoring import Monitoring
from guardrail.packs.load import load, shipped_rules
from guardrail.packs.watch import state_of
from guardrail.proxy.dialects import DIALECTS
from guardrail.proxy.endpoint import LOST_NOTICE, SAFE_ANSWER, Endpoint, MakeReplyGuard, Service
from guardrail.proxy.limits import ExchangeLimits
from guardrail.proxy.passing import PassThrough
from guardrail.proxy.tracing import UNTRACED, Tracing
from guardrail.proxy.trust import Tenant, Trust, read_networks
from guardrail.proxy.turns import in_turns
from guardrail.proxy.upstream import HttpPool, Limits, Timeouts, Tls, Upstream
from guardrail.reload import Reloader

log = structlog.get_logger("guardrail")


class Application:
    """The ASGI application. `service` holds what its parts share."""

    def __init__(self, service: Service, endpoints: Mapping[str, ASGIApp], rest: ASGIApp) -> None:
        self.service = service
        self._endpoints = endpoints
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        await (endpoint or self._other(scope))(scope, receive, send)

    def _other(self, scope: Scope) -> ASGIApp:
        """Vendors put other things before the same paths: deployments, projects, versions."""
        if scope["type"] == "http" and scope["method"] == "POST":
            for path, endpoint in self._endpoints.items():
                if scope["path"].endswith(path):
                    return endpoint
        return self._rest


def load_guard(rules: Path | None = None, overrides: Path | None = None) -> Guard:
    """The guard of a folder of packs, or of those that come with Guardrail; `overrides` is what a site changes in them."""
    knowledge = load(rules or shipped_rules(), overrides=overrides).knowledge
    english = knowledge.answers.languages[knowledge.answers.fallback]
    if SAFE_ANSWER not in english.answers or LOST_NOTICE not in english.notices:
        raise ConfigError(f'languages/en/answers.yaml needs the answer "{SAFE_ANSWER}" and the notice "{LOST_NOTICE}"')
    return Guard(knowledge, cache_key=os.urandom(32))


def create_service(
    settings: Settings,
    *,
    guard: Guard | None = None,
    upstream: Upstream | None = None,
    reply_guard: MakeReplyGuard | None = None,
    recorders: Sequence[Recorder] = (),
    note: Callable[[ExchangeRecord], None] = lambda record: None,
) -> Service:
    """What the endpoints share. Every finished exchange goes to the log and to the `recorders`; `note` sees it before its last bytes."""
    return Service(
        guard=guard or load_guard(settings.rules, settings.overrides),
        upstream=upstream or _upstream(settings),
        record=_all((logs.LogRecorder(), *recorders)),
        note=note,
        limits=_limits(settings),
        trust=_trust(settings),
        reply_guard=reply_guard or partial(ReplyGuard, memory=ReplyMemory(os.urandom(32))),
        tracing=_tracing(settings),
        upstream_key=settings.upstream_api_key.get_secret_value().encode() if settings.upstream_api_key else None,
        remove_unreadable=settings.unreadable_replies == "remove",
    )


def create_app(
    settings: Settings,
    *,
    guard: Guard | None = None,
    upstream: Upstream | None = None,
    reply_guard: MakeReplyGuard | None = None,
    recorders: Sequence[Recorder] = (),
    routes: Sequence[BaseRoute] = (),
    ready: Callable[[], Mapping[str, bool]] = dict,
    open_dashboard: bool = False,
    board: Board | None = None,
) -> ASGIApp:
    """The application of these settings.

    `recorders` get every finished exchange beside the log and the audit store; `routes` are served in front of the proxy's
    other paths; `ready` says by name which further parts work; `open_dashboard` lets this machine in without a password; `board` is
    shared with the other workers of this server.
    """
    # The shipped packs change only with the program, which is then started again.
    watched = tuple(folder for folder in (settings.rules, settings.overrides) if folder)
    before = state_of(*watched)
    monitoring = Monitoring(settings, open_dashboard=open_dashboard)
    service = create_service(
        settings, guard=guard, upstream=upstream, reply_guard=reply_guard, recorders=(monitoring, *recorders), note=monitoring.note
    )

    reloader = Reloader(
        service,
        lambda: load_guard(settings.rules, settings.overrides),
        board or Board(),
        watched,
        settings.rules_watch_seconds,
        before,
    )

    def parts() -> dict[str, bool | None]:
        return {"packs": not reloader.problems, **monitoring.parts(), **ready()}

    admin = _Admin(service, settings, parts, reloader, monitoring.admission)
    watching = monitoring.start(lambda: service.guard.knowledge, parts, reloader, lambda: service.in_flight)
    rest = Starlette(
        routes=[*admin.routes(), *watching, *routes, Mount("", app=PassThrough(service, settings.pass_paths))],
        lifespan=_lifespan(service, monitoring, reloader),
    )
    endpoints = {path: Endpoint(dialect, service) for dialect in DIALECTS for path in dialect.paths}
    app: ASGIApp = Application(service, endpoints, rest)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["guardrail-decision", "guardrail-exchange"],
        )
    return app


def from_environment() -> ASGIApp:
    """For servers that load an application by name, and for our own worker processes."""
    logs.configure()
    folder = os.environ.get(VARIABLE)
    board = Board(Path(folder)) if folder else None
    if board is not None:
        board.heed_hangup()
    return create_app(config.load(), board=board)


class _Admin:
    """What is served beside the proxy: health, readiness, checks, packs and their reload."""

    def __init__(
        self,
        service: Service,
        settings: Settings,
        ready: Callable[[], Mapping[str, bool | None]],
        reloader: Reloader,
        admission: Admission,
    ) -> None:
        self._service = service
        self._reloader = reloader
        self._admission = admission
        # Where there is a token, nobody needs to be let in for sitting at this machine.
        self._here = settings.admin_token is None
        self._ready = ready

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/-/health", self.health),
            Route("/-/ready", self.ready),
            Route("/-/packs", self.packs),
            Route("/-/check", self.check, methods=["POST"]),
            Route("/-/reload", self.reload, methods=["POST"]),
        ]

    async def health(self, request: Request) -> Response:
        """The process runs and answers patients: nothing else may keep traffic from it. `workers`: how many have which packs."""
        reloader = self._reloader
        return _json({"status": "ok", "packs": reloader.revision, "workers": reloader.workers(), "pack_problems": len(reloader.problems)})

    async def ready(self, request: Request) -> Response:
        """It can do all of its work. Emergencies are answered even when it cannot. A part that is null has not been tried."""
        parts = dict(self._ready())
        works = False not in parts.values()
        return _json({"status": "ready" if works else "degraded", "parts": parts}, 200 if works else 503)

    async def packs(self, request: Request) -> Response:
        if not await self._admission.may(request, Role.VIEWER, here=True):
            return _json({"error": "send the admin token or an API token as Authorization: Bearer"}, 403)
        knowledge = self._service.guard.knowledge
        packs = [
            {"name": p.name, "title": p.title, "version": p.version, "reviewed": p.reviewed, "rules": p.rules} for p in knowledge.packs
        ]
        problems = list(self._reloader.problems)
        found = {"revision": knowledge.revision, "workers": self._reloader.workers(), "packs": packs, "problems": problems}
        return _json({**found, "overrides": [asdict(o) for o in knowledge.overrides]})

    async def check(self, request: Request) -> Response:
        """The contract of `guardrail check --jsonl`, for one object."""
        service = self._service
        try:
            service.trust.caller(request.scope)
            item = orjson.loads(await _read_body(request, service.limits.body_bytes))
            return _json(await in_turns(check.check_steps(service.guard, item), service.limits.review_seconds))
        except orjson.JSONDecodeError:
            return _json({"error": "the body is not JSON"}, 400)
        except CallerError as error:
            return _json({"error": str(error)}, error.status)

    async def reload(self, request: Request) -> Response:
        """Build new packs beside the old, and swap whole; bad ones change nothing."""
        if not await self._admission.may(request, Role.ADMIN, here=self._here):
            return _json({"error": "send the admin token or an API token of an admin as Authorization: Bearer"}, 403)
        status, answer = await self._reloader.reload()
        return _json(answer, status)


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _read_body(request: Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise RequestTooLarge(f"the body is larger than {limit} bytes")
    return b"".join(parts)


def _lifespan(service: Service, monitoring: Monitoring, reloader: Reloader) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        gc.collect()
        gc.freeze()  # half a million objects of the packs: going through them would stop every stream for half a second
        monitoring.open()
        watching = asyncio.create_task(reloader.watch())
        watching.add_done_callback(_ended)
        yield
        watching.cancel()
        await service.upstream.aclose()
        await monitoring.close()
        await asyncio.to_thread(service.tracing.close)
        reloader.close()

    return lifespan


def _ended(watching: asyncio.Task[None]) -> None:
    """Packs that no longer follow their folder must not go unseen."""
    error = None if watching.cancelled() else watching.exception()
    if error is not None:
        log.error("packs_watch_stopped", error=type(error).__name__, alarm=True, exc_info=error)


def _all(recorders: Sequence[Recorder]) -> Callable[[ExchangeRecord], None]:
    def record(exchange: ExchangeRecord) -> None:
        for recorder in recorders:
            recorder.record(exchange)

    return record


def _upstream(settings: Settings) -> Upstream:
    if settings.upstream is None:
        raise ConfigError("no upstream; give one with --upstream, GUARDRAIL_UPSTREAM or upstream: in the settings file")
    return HttpPool(
        settings.upstream,
        Timeouts(settings.connect_seconds, settings.first_byte_seconds, settings.read_seconds, settings.pool_seconds),
        Limits(connections=settings.max_connections),
        Tls(settings.upstream_ca_file, settings.upstream_cert_file, settings.upstream_key_file),
        settings.upstream_proxy.get_secret_value() if settings.upstream_proxy else None,
    )


def _tracing(settings: Settings) -> Tracing:
    if settings.traces is None:
        return UNTRACED
    try:
        from guardrail.tracing import OpenTelemetryTracing
    except ImportError as error:
        raise ConfigError(f"traces need OpenTelemetry ({error.name} is missing): pip install 'guardrail[tracing]'") from error
    return OpenTelemetryTracing(settings.traces)


def _limits(settings: Settings) -> ExchangeLimits:
    return ExchangeLimits(
        body_bytes=settings.max_body_bytes,
        messages=settings.max_messages,
        message_chars=settings.max_message_chars,
        conversation_chars=settings.max_conversation_chars,
        reply_bytes=settings.max_reply_bytes,
        review_seconds=settings.review_seconds,
        concurrent=settings.max_concurrent,
    )


def _trust(settings: Settings) -> Trust:
    tenants = {
        hashlib.sha256(given.api_key.get_secret_value().encode()).digest(): Tenant(
            name, given.country, given.language, given.requests_per_minute
        )
        for name, given in settings.tenants.items()
    }
    return Trust(
        tenants=tenants,
        country=settings.country,
        language=settings.language,
        country_header=settings.country_header.lower().encode() if settings.country_header else None,
        patient_header=settings.patient_header.lower().encode() if settings.patient_header else None,
        trusted_proxies=read_networks(settings.trusted_proxies),
    )
