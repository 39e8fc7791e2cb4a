"""Who is asking: API keys and tenants, rates, and which proxies may speak for the patient's country.

Decided in one place, from the connection's address and the headers. Keys are kept as digests and never logged.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from guardrail.errors import CallerError, ConfigError


class NotAdmitted(CallerError):
    """No valid API key."""

    status = 401


class TooManyRequests(CallerError):
    """Over the rate of its key."""

    status = 429


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who a key belongs to, and what holds for its patients."""

    name: str
    country: str | None = None
    language: str | None = None
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    tenant: Tenant | None
    country: str | None
    language: str | None
    patient: str | None


@dataclass(slots=True)
class Trust:
    """Reads the caller from an ASGI scope. `tenants` maps the SHA-256 of an API key to its tenant; none: no key needed."""

    tenants: Mapping[bytes, Tenant] = field(default_factory=dict)
    country: str | None = None
    language: str | None = None
    country_header: bytes | None = None
    patient_header: bytes | None = None
    trusted_proxies: Sequence[IPv4Network | IPv6Network] = ()
    _spent: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Tenant -> (tokens left, when that was)."""

    def caller(self, scope: Mapping[str, Any]) -> Caller:
        tenant = self._tenant(scope["headers"]) if self.tenants else None
        country, patient = (tenant and tenant.country) or self.country, None
        if self.country_header or self.patient_header:
            trusted = self.is_trusted(scope)
            for name, value in scope["headers"]:
                if name == self.country_header and trusted:
                    code = value.strip().upper()
                    if len(code) == 2 and code.isalpha() and code.isascii():
                        country = code.decode()
                elif name == self.patient_header:
                    patient = value.decode("latin-1")[:200]
        return Caller(tenant, country, (tenant and tenant.language) or self.language, patient)

    def is_trusted(self, scope: Mapping[str, Any]) -> bool:
        """Whether the connection comes from a proxy of ours. A Unix socket has no address and is ours."""
        client = scope.get("client")
        if client is None:
            return True
        try:
            address = ip_address(client[0])
        except ValueError:
            return False
        return any(address in network for network in self.trusted_proxies)

    def spend(self, caller: Caller, now: float) -> None:
        """Count one request against the rate of its tenant: a bucket that holds one minute's worth and refills steadily."""
        tenant = caller.tenant
        if tenant is None or not tenant.requests_per_minute:
            return
        size = float(tenant.requests_per_minute)
        left, since = self._spent.get(tenant.name, (size, now))
        left = min(size, left + (now - since) * size / 60)
        if left < 1:
            raise TooManyRequests(f"more than {tenant.requests_per_minute} requests a minute; try again in {(1 - left) * 60 / size:.0f} s")
        self._spent[tenant.name] = (left - 1, now)

    def _tenant(self, headers: Sequence[tuple[bytes, bytes]]) -> Tenant:
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                value = value[7:]
            elif name not in KEY_HEADERS or name == b"authorization":
                continue
            if (tenant := self.tenants.get(hashlib.sha256(value.strip()).digest())) is not None:
                return tenant
        raise NotAdmitted("no valid API key; send it as Authorization: Bearer or x-api-key")


KEY_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})


def read_networks(values: Sequence[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(value, strict=False) for value in values)
    except ValueError as error:
        raise ConfigError(f"trusted_proxies: {error}; write addresses like 10.0.0.0/8") from None
