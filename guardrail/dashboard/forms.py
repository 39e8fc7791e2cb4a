"""Plain forms, and where a request comes from."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request

_FORM_BYTES: Final = 20_000

Networks = Sequence[IPv4Network | IPv6Network]


async def read_form(request: Request) -> dict[str, str]:
    """A plain form, read without a library for uploads; one that is too large is read as empty."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _FORM_BYTES:
            return {}
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


def is_same_origin(request: Request) -> bool:
    """Browsers say where a form comes from; a program that says nothing carries no cookies either."""
    if (site := request.headers.get("sec-fetch-site")) is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def is_forwarded(request: Request) -> bool:
    """Whether a proxy stands between: then the connection's address is the proxy's."""
    return any(name in request.headers for name in ("x-forwarded-for", "forwarded", "x-real-ip"))


def address_of(request: Request, proxies: Networks) -> str:
    """Who asks: the last address on the way that is no proxy of ours. What stands before that, anybody can have written."""
    address = request.client.host if request.client else "local"
    way = [part.strip() for part in request.headers.get("x-forwarded-for", "").split(",") if part.strip()]
    while way and (address == "local" or _is_within(address, proxies)):
        address = way.pop()
    return address


def _is_within(address: str, networks: Networks) -> bool:
    try:
        return any(ip_address(address) in network for network in networks)
    except ValueError:
        return False
