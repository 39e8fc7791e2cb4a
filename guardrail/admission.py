"""Who is let in to what stands beside the proxy, as the settings want it: made once, shared by the dashboard and the admin routes."""

import asyncio
import hmac
from typing import Any

from starlette.requests import Request

from guardrail.config import Settings
from guardrail.dashboard.access import RECHECK_SECONDS, Access
from guardrail.dashboard.forms import is_forwarded
from guardrail.dashboard.oidc import Provider
from guardrail.dashboard.people import Role, User
from guardrail.dashboard.signing_in import CALLBACK
from guardrail.dashboard.tables import Tables
from guardrail.errors import StoreError
from guardrail.proxy.trust import read_networks


class Admission:
    """Without `audit` there is no store for sessions and tokens; then only `admin_token` and this machine are let in."""

    def __init__(self, settings: Settings, *, open_dashboard: bool = False) -> None:
        self._admin_token = settings.admin_token.get_secret_value().encode() if settings.admin_token else None
        self._tables = Tables(settings.audit) if settings.audit else None
        self._provider = _provider(settings)
        self._secure = (settings.dashboard_url or "").startswith("https://")
        self._proxies = read_networks(settings.trusted_proxies)
        self.access = (
            None
            if self._tables is None
            else Access(
                {name: User(name, Role[u.role.upper()], u.password.get_secret_value()) for name, u in settings.dashboard_users.items()},
                self._tables,
                provider=self._provider.name if self._provider else None,
                idle_seconds=settings.dashboard_idle_minutes * 60,
                session_seconds=settings.dashboard_session_hours * 3600,
                recheck_seconds=settings.dashboard_oidc.recheck_minutes * 60 if settings.dashboard_oidc else RECHECK_SECONDS,
                open_access=open_dashboard,
            )
        )

    def door(self) -> dict[str, Any]:
        """The settings of `SigningIn`."""
        return {"provider": self._provider, "secure": self._secure, "proxies": self._proxies}

    async def may(self, request: Request, role: Role, *, here: bool) -> bool:
        """Whether the request may do what needs this role: by the admin token, by an API token, or from this machine where `here`."""
        shown = request.headers.get("authorization", "")
        if not shown:
            # Behind a reverse proxy everybody comes from this machine; then a token is needed.
            return here and not is_forwarded(request) and (request.client is None or request.client.host in ("127.0.0.1", "::1"))
        if self._admin_token is not None and hmac.compare_digest(shown.removeprefix("Bearer ").encode(), self._admin_token):
            return True
        if self.access is None:
            return False
        try:
            holder = await asyncio.to_thread(self.access.holder, shown)
        except StoreError:
            return False
        return holder is not None and holder.role >= role

    def close(self) -> None:
        if self._tables is not None:
            self._tables.close()


def _provider(settings: Settings) -> Provider | None:
    given = settings.dashboard_oidc
    if given is None:
        return None
    return Provider(
        given.issuer,
        given.client_id,
        given.client_secret.get_secret_value() if given.client_secret else None,
        f"{settings.dashboard_url}{CALLBACK}",
        {group: Role[role.upper()] for group, role in given.roles.items()},
        groups_claim=given.groups_claim,
        name_claim=given.name_claim,
        scopes=given.scopes,
    )
