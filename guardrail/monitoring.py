"""What watches the exchanges of one app: the audit store, the metrics, the alerts and the dashboard, as the settings want them.

A part of `app.create_app` with a file of its own. It is itself a recorder: nothing it does can stop or delay an answer.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from starlette.routing import BaseRoute, Route

from guardrail.admission import Admission
from guardrail.alerts.service import Alerts
from guardrail.audit.entry import pseudonym
from guardrail.audit.keys import SigningKey, TextKeys
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.store import AuditStore
from guardrail.config import Settings
from guardrail.dashboard.pages import Dashboard, Reader
from guardrail.engine.knowledge import Knowledge
from guardrail.errors import ConfigError
from guardrail.metrics import Metrics
from guardrail.reload import Reloader

_LOOK_SECONDS: Final = 1.0
_UPSTREAM_WORKED: Final = frozenset({Outcome.FORWARDED, Outcome.CUT})
_UPSTREAM_FAILED: Final = frozenset({Outcome.UPSTREAM_UNREACHABLE, Outcome.UPSTREAM_LOST})


def read_keys(settings: Settings) -> tuple[SigningKey | None, TextKeys | None]:
    """What seals the record and what encrypts its texts, as far as they are set. Raises ConfigError."""
    if settings.audit_text == "encrypted" and settings.audit_text_keys is None:
        raise ConfigError("audit_text: encrypted needs audit_text_keys; guardrail audit text-key FILE makes the file")
    keys = TextKeys.read(settings.audit_text_keys) if settings.audit_text_keys else None
    return SigningKey.read(settings.audit_signing_key) if settings.audit_signing_key else None, keys


class Monitoring:
    """Takes every finished exchange. `open_dashboard` lets this machine in without a password: for `guardrail demo` only."""

    def __init__(self, settings: Settings, *, open_dashboard: bool = False) -> None:
        self._settings = settings
        self.admission = Admission(settings, open_dashboard=open_dashboard)
        self._store: AuditStore | None = None
        self._tenant_key: bytes | None = None
        """With which callers become pseudonyms in the record, where they do."""
        self._metrics: Metrics | None = None
        self._alerts: Alerts | None = None
        self._reader: Reader | None = None
        self._upstream_works: bool | None = None
        self._looking: asyncio.Task[None] | None = None

    def start(
        self,
        knowledge: Callable[[], Knowledge],
        parts: Callable[[], Mapping[str, bool | None]],
        reloader: Reloader | None,
        in_flight: Callable[[], int],
    ) -> list[BaseRoute]:
        """Open the store and give the routes of metrics and dashboard. `parts` is everything that readiness tells.

        `reloader` is None where packs and pages are the host's.
        """
        settings = self._settings
        token = settings.metrics_token.get_secret_value() if settings.metrics_token else None
        self._metrics = Metrics(knowledge, parts, in_flight, token)
        routes: list[BaseRoute] = [Route("/-/metrics", self._metrics.page)]
        # Without a key of the operator's, pseudonyms hold as long as the process: better than ones that can be looked up.
        key = settings.audit_key.get_secret_value().encode() if settings.audit_key else os.urandom(32)
        self._tenant_key = key if settings.audit_tenants == "pseudonym" else None
        if settings.alerts is not None:
            address = settings.dashboard_url
            self._alerts = Alerts(settings.alerts, settings.audit, key, self._store_works, self._metrics, address=address)
        if settings.audit is None:
            return routes
        signing, keys = read_keys(settings)
        self._store = AuditStore(settings.audit, settings.audit_text, key, settings.audit_spool, signing=signing, keys=keys)
        if settings.dashboard and reloader is not None:
            self._reader = Reader(settings.audit, keys, signing)
            access = self.admission.access
            assert access is not None, "there is a store"
            dashboard = Dashboard(
                self._reader,
                knowledge,
                parts,
                access,
                reloader.reload,
                self._store.record_access,
                workers=reloader.workers,
                problems=lambda: reloader.problems,
                **self.admission.door(),
            )
            routes += dashboard.routes()
        return routes

    def note(self, record: ExchangeRecord) -> None:
        """What the record must hold even if the process is killed now; called before the last bytes of an answer."""
        if self._store is not None:
            self._store.note(self._kept(record))

    def record(self, record: ExchangeRecord) -> None:
        self._note_upstream(record)
        if self._store is not None:
            self._store.record(self._kept(record))
        if self._metrics is not None:
            self._metrics.record(record)
        if self._alerts is not None:
            self._alerts.record(record)

    def parts(self) -> dict[str, bool | None]:
        """By name, what works; of the upstream, as far as the last exchange told, None before there was one."""
        parts: dict[str, bool | None] = {} if self._store is None else {"audit": self._store.healthy}
        return parts | {"upstream": self._upstream_works}

    def open(self) -> None:
        """Begin what runs beside the exchanges."""
        if self._alerts is not None:
            self._alerts.start()
        if self._metrics is not None:
            self._looking = asyncio.create_task(_look_now_and_then(self._metrics))

    async def close(self) -> None:
        """Write what is queued, then let go of the store."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        if self._alerts is not None:
            await asyncio.to_thread(self._alerts.close)
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        if self._reader is not None:
            self._reader.close()
        self.admission.close()
        if self._metrics is not None:
            self._metrics.close()

    def _store_works(self) -> bool:
        return self._store is None or self._store.healthy

    def _kept(self, record: ExchangeRecord) -> ExchangeRecord:
        return replace(record, tenant=pseudonym(self._tenant_key, record.tenant)) if self._tenant_key else record

    def _note_upstream(self, record: ExchangeRecord) -> None:
        if record.outcome in _UPSTREAM_FAILED or (record.outcome is Outcome.UPSTREAM_REFUSED and record.status >= 500):
            self._upstream_works = False
        elif record.outcome in _UPSTREAM_WORKED:
            self._upstream_works = True


async def _look_now_and_then(metrics: Metrics) -> None:
    while True:
        metrics.look()
        await asyncio.sleep(_LOOK_SECONDS)
