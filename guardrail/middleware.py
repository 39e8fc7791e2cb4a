"""The guard inside another ASGI application: its chat endpoints are guarded, everything else passes untouched.

    app.add_middleware(GuardrailMiddleware, settings=Settings(country="GB"))

Same guard, same records and same failures as the proxy; the application takes the place of the upstream.
"""

import asyncio
from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.app import create_service
from guardrail.audit.record import Recorder
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from guardrail.errors import ConfigError
from guardrail.monitoring import Monitoring
from guardrail.packs.source import nearest
from guardrail.proxy.dialects import DIALECTS
from guardrail.proxy.endpoint import Endpoint
from guardrail.proxy.inner import InnerApp, current_scope


class GuardrailMiddleware:
    """Guards the usual paths of every dialect, and those named in `paths` (path -> name of its dialect)."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings | None = None,
        guard: Guard | None = None,
        recorders: Sequence[Recorder] = (),
        paths: Mapping[str, str] | None = None,
    ) -> None:
        self._app = app
        settings = (settings or Settings()).model_copy(update={"dashboard": False})  # pages are the host's to mount
        self._monitoring = Monitoring(settings)
        self.service = create_service(
            settings, guard=guard, upstream=InnerApp(app), recorders=(self._monitoring, *recorders), note=self._monitoring.note
        )
        self._monitoring.start(lambda: self.service.guard.knowledge, self._monitoring.parts, None, lambda: self.service.in_flight)
        by_name = {dialect.name: Endpoint(dialect, self.service) for dialect in DIALECTS}
        self._endpoints = {path: by_name[dialect.name] for dialect in DIALECTS for path in dialect.paths}
        for path, name in (paths or {}).items():
            if name not in by_name:
                raise ConfigError(f'paths: there is no dialect "{name}"; did you mean "{nearest(name, by_name) or next(iter(by_name))}"?')
            self._endpoints[path] = by_name[name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._beside(send))
            return
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        token = current_scope.set(scope)
        try:
            await endpoint(scope, receive, send)
        finally:
            current_scope.reset(token)

    def _beside(self, send: Send) -> Send:
        """We begin and end with the application: what is still queued is written before the server goes."""

        async def beside(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._monitoring.open()
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self._monitoring.close()
                await asyncio.to_thread(self.service.tracing.close)
            await send(message)

        return beside
