"""Who is asking: keys, rates, and whose word about the country counts."""

import hashlib
from typing import Any

import pytest

from guardrail.errors import ConfigError
from guardrail.proxy.trust import Caller, NotAdmitted, Tenant, TooManyRequests, Trust, read_networks

CLINIC = Tenant("clinic", country="US", language="es", requests_per_minute=60)


def scope(client: tuple[str, int] | None = ("127.0.0.1", 1), /, **headers: str) -> dict[str, Any]:
    return {"client": client, "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


def trust(**more: Any) -> Trust:
    return Trust(tenants={hashlib.sha256(b"key").digest(): CLINIC}, country="GB", language="en", **more)


@pytest.mark.parametrize(
    "headers", [{"authorization": "Bearer key"}, {"authorization": "bearer  key"}, {"x_api_key": "key"}, {"api_key": "key"}]
)
def test_a_key_is_found_in_the_headers_of_all_vendors(headers: dict[str, str]) -> None:
    assert trust().caller(scope(**headers)) == Caller(CLINIC, "US", "es", None)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer other"}, {"authorization": "Basic key"}, {"x_key": "key"}])
def test_without_a_valid_key_nobody_is_admitted(headers: dict[str, str]) -> None:
    with pytest.raises(NotAdmitted):
        trust().caller(scope(**headers))


def test_without_tenants_everybody_is() -> None:
    assert Trust(country="GB", patient_header=b"x-patient").caller(scope(x_patient="p1")) == Caller(None, "GB", None, "p1")


@pytest.mark.parametrize(
    ("client", "trusted"),
    [(("10.1.2.3", 1), True), (("192.0.2.1", 1), False), (("::1", 1), True), (("testclient", 1), False), (None, True)],
)
def test_trusted_proxies(client: tuple[str, int] | None, trusted: bool) -> None:
    one = Trust(country_header=b"x-country", trusted_proxies=read_networks(["10.0.0.0/8", "::1"]))

    assert one.is_trusted(scope(client)) is trusted
    assert one.caller(scope(client, x_country="fr")).country == ("FR" if trusted else None)


def test_networks_that_are_none() -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        read_networks(["10.0.0.0/99"])


def test_a_rate_refills_steadily() -> None:
    one, caller = trust(), Caller(CLINIC, None, None, None)
    for _ in range(60):
        one.spend(caller, 100.0)

    with pytest.raises(TooManyRequests, match="more than 60 requests a minute; try again in 1 s"):
        one.spend(caller, 100.0)
    one.spend(caller, 101.0)
    with pytest.raises(TooManyRequests):
        one.spend(caller, 101.0)
    one.spend(Caller(Tenant("free"), None, None, None), 101.0)
