"""Who may see the dashboard, and who may judge: users from the settings, sessions, form tokens, throttled logins.

Stateless on purpose, so that replicas need not share anything: a session is a signed cookie, signed with a key made from the users'
password hashes. Changing a password ends its sessions; there is no list of sessions to revoke one by one. Programs may use
HTTP Basic instead. Without users nothing is served, except with `open_access`, which `guardrail demo` uses on loopback.
"""

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

SESSION_SECONDS = 12 * 3600  # a shift
COOKIE = "guardrail_session"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# 16 MiB and about 50 ms a guess: what OWASP asks of scrypt where many logins at once must not exhaust memory.
_N, _R, _P = 2**14, 8, 5
_TRIES_PER_ADDRESS, _TRIES_PER_NAME, _TRIES_SECONDS = 10, 30, 300.0
_REMEMBERED = 10_000


class Role(IntEnum):
    """What a user may do; each may do all that the one before may."""

    VIEWER = 1
    """Reads."""
    REVIEWER = 2
    """Acknowledges, resolves, exports cases."""
    ADMIN = 3
    """Reloads the packs."""


@dataclass(frozen=True, slots=True)
class User:
    name: str
    role: Role
    password: str = field(default="", repr=False)
    """As `hash_password` writes it."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who was let in; `session` binds the tokens of their forms."""

    name: str
    role: Role
    session: str
    signed_in: bool = False


class TooManyTries(Exception):
    """Too many wrong passwords; `seconds` until the next try."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many wrong passwords; try again in {seconds} s")
        self.seconds = seconds


def hash_password(password: str, salt: bytes | None = None) -> str:
    """What the settings hold in place of a password: `scrypt$n$r$p$salt$hash`."""
    salt = os.urandom(16) if salt is None else salt
    return f"scrypt${_N}${_R}${_P}${_b64(salt)}${_b64(_scrypt(password, salt, _N, _R, _P))}"


def is_password(password: str, kept: str) -> bool:
    """Whether it is the password of this hash. A hash that cannot be read fits nothing."""
    try:
        kind, n, r, p, salt, digest = kept.split("$")
        return kind == "scrypt" and hmac.compare_digest(_scrypt(password, _unb64(salt), int(n), int(r), int(p)), _unb64(digest))
    except (ValueError, binascii.Error, MemoryError):
        return False


def is_hash(kept: str) -> bool:
    """Whether `hash_password` could have written it."""
    parts = kept.split("$")
    return len(parts) == 6 and parts[0] == "scrypt" and all(part.isdigit() for part in parts[1:4])


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=64 * 2**20, dklen=32)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Throttle:
    """Counts wrong passwords in a window, per address and per name; forgets the oldest when it remembers too many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, address: str, name: str) -> None:
        """Raises TooManyTries."""
        for key, most in ((f"address {address}", _TRIES_PER_ADDRESS), (f"name {name}", _TRIES_PER_NAME)):
            recent = self._recent(key)
            if len(recent) >= most:
                raise TooManyTries(int(recent[0] + _TRIES_SECONDS - self._clock()) + 1)

    def wrong(self, address: str, name: str) -> None:
        for key in (f"address {address}", f"name {name[:100]}"):
            self._wrong[key] = [*self._recent(key), self._clock()]
            self._wrong.move_to_end(key)
        while len(self._wrong) > _REMEMBERED:
            self._wrong.popitem(last=False)

    def _recent(self, key: str) -> list[float]:
        since = self._clock() - _TRIES_SECONDS
        return [at for at in self._wrong.get(key, ()) if at > since]


class Access:
    """Lets people in. `check` costs 50 ms of CPU: call it in a thread."""

    def __init__(self, users: Mapping[str, User], *, open_access: bool = False, clock: Callable[[], float] = time.time) -> None:
        self.open_access = open_access
        self._users = users
        self._clock = clock
        secret = "\n".join(f"{name} {user.password}" for name, user in sorted(users.items())).encode()
        self._key = hashlib.sha256(b"guardrail dashboard\n" + secret).digest() if users else os.urandom(32)
        self._throttle = Throttle()
        self._known: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    @property
    def has_users(self) -> bool:
        return bool(self._users)

    def check(self, name: str, password: str, address: str) -> User | None:
        """The user of this name and password; raises TooManyTries."""
        self._throttle.check(address, name)
        user = self._users.get(name)
        # An unknown name takes as long as a wrong password, so that names cannot be found out.
        fits = is_password(password, user.password if user else _NOBODY)
        if user is None or not fits:
            self._throttle.wrong(address, name)
            return None
        return user

    def check_basic(self, header: str, address: str) -> User | None:
        """The user of an Authorization header. A pair that fitted is remembered, as a digest, for a minute."""
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        digest = hmac.new(self._key, value.encode(), hashlib.sha256).digest()
        until, known = self._known.get(digest, (0.0, ""))
        if until > self._clock():
            return self._users.get(known)
        user = self.check(name, password, address)
        if user is not None:
            self._known[digest] = (self._clock() + 60, user.name)
            while len(self._known) > 100:
                self._known.popitem(last=False)
        return user

    def open_session(self, user: User) -> str:
        """The value of the cookie: name, end, and a signature over both and the user's password hash."""
        until = str(int(self._clock()) + SESSION_SECONDS)
        nonce = _b64(os.urandom(12))
        name = _b64(user.name.encode())
        return f"{name}.{until}.{nonce}.{self._sign('session', name, until, nonce, user.password)}"

    def read_session(self, cookie: str) -> Visitor | None:
        try:
            name, until, nonce, signature = cookie.split(".")
            user = self._users.get(_unb64(name).decode())
        except (ValueError, binascii.Error):
            return None
        if user is None or not hmac.compare_digest(signature.encode(), self._sign("session", name, until, nonce, user.password).encode()):
            return None
        return Visitor(user.name, user.role, nonce, signed_in=True) if int(until) > self._clock() else None

    def form_token(self, visitor: Visitor) -> str:
        """What a form must send back, so that no other site can send it for the visitor."""
        return self._sign("form", visitor.name, visitor.session)

    def is_form_token(self, visitor: Visitor, token: str) -> bool:
        return hmac.compare_digest(self.form_token(visitor).encode(), token.encode())

    def _sign(self, *parts: str) -> str:
        return _b64(hmac.new(self._key, "\0".join(parts).encode(), hashlib.sha256).digest())


_NOBODY = hash_password("", b"\0" * 16)
