"""Who is let in: users of the settings by password, people of a single sign-on, programs by API token.

Ties together what each has a module of its own: `passwords`, `throttle`, `sessions`, `tokens`. Everything but form tokens asks the
store, and a password costs some 20 ms of CPU: call it in a thread. It raises StoreError while the store is away; then nobody is let in.
"""

import hmac
import secrets
import time
from collections.abc import Callable, Mapping

from guardrail.dashboard.passwords import hash_password, is_password
from guardrail.dashboard.people import Role, User, Visitor
from guardrail.dashboard.sessions import Begun, Session, Sessions
from guardrail.dashboard.tables import Tables, digest
from guardrail.dashboard.throttle import Throttle
from guardrail.dashboard.tokens import Tokens

IDLE_SECONDS = 3600.0
RECHECK_SECONDS = 3600.0
SESSION_SECONDS = 12 * 3600.0  # a shift


class Access:
    """`provider` names the single sign-on whose sessions count, if there is one: another provider, and they end.

    After `recheck_seconds` the provider has to vouch for somebody again, who may have left a group.

    `open_access` is for `guardrail demo`: it lets this machine in without anything; who asks from where is for the caller to see.
    """

    def __init__(
        self,
        users: Mapping[str, User],
        tables: Tables,
        *,
        provider: str | None = None,
        idle_seconds: float = IDLE_SECONDS,
        session_seconds: float = SESSION_SECONDS,
        recheck_seconds: float = RECHECK_SECONDS,
        open_access: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.open_access = open_access
        self.session_seconds = session_seconds
        self.has_users = bool(users)
        self._users = users
        self._provider = digest(f"provider {provider}") if provider is not None else None
        self._recheck_seconds = recheck_seconds
        self._throttle = Throttle(tables, clock)
        self._sessions = Sessions(tables, idle_seconds, session_seconds, clock)
        self._tokens = Tokens(tables, clock)
        self._nobody = hash_password(secrets.token_urlsafe())
        self._demo = Visitor("demo", Role.ADMIN, secrets.token_urlsafe())

    def sign_in(self, name: str, password: str, address: str, before: str = "") -> str | None:
        """The secret of a new session in place of the one of `before`; None where name or password is wrong. Raises TooManyTries."""
        a_try = self._throttle.begin(address, name)
        user = self._users.get(name)
        # An unknown name takes as long as a wrong password, so that names cannot be found out.
        if not is_password(password, user.password if user else self._nobody) or user is None:
            return None
        self._throttle.forgive(a_try)
        return self._sessions.open(Session(user.name, user.role, _basis(user)), before)

    def begin_sign_in(self, begun: Begun) -> str:
        """Keep a sign-in that goes on at the provider; the secret of the browser's cookie meanwhile."""
        return self._sessions.begin_sign_in(begun)

    def end_sign_in(self, secret: str) -> Begun | None:
        """What was kept for this browser, once, for ten minutes."""
        return self._sessions.end_sign_in(secret)

    def admit(self, name: str, role: Role, before: str = "") -> str:
        """The secret of a new session for somebody the provider vouches for."""
        assert self._provider is not None, "somebody vouches for them"
        # In the record nobody can pass for a user of the settings.
        shown = f"{name} (single sign-on)" if name in self._users else name
        return self._sessions.open(Session(shown, role, self._provider), before)

    def sign_out(self, secret: str) -> None:
        self._sessions.close(secret)

    def visitor(self, secret: str, *, seen: bool = True) -> Visitor | None:
        """Whose session it is. `seen` says that a person asked, not a page that refreshes itself."""
        session = self._sessions.read(secret, seen=seen) if secret else None
        if session is None:
            return None
        user = self._users.get(session.name)
        if user is not None and session.basis == _basis(user):
            return Visitor(user.name, user.role, secret, signed_in=True)  # the role as the settings have it now
        # A page that refreshes itself goes on until the session is idle: asking again for it would keep an empty chair signed in.
        if self._provider is not None and session.basis == self._provider and not (seen and self._is_old(session)):
            return Visitor(session.name, session.role, secret, signed_in=True)
        return None

    def must_ask_again(self, secret: str) -> bool:
        """Whether the provider, asked again, may let this session's owner go on."""
        session = self._sessions.read(secret, seen=False) if secret and self._provider is not None else None
        return session is not None and session.basis == self._provider and self._is_old(session)

    def _is_old(self, session: Session) -> bool:
        return session.age >= self._recheck_seconds

    def holder(self, authorization: str) -> Visitor | None:
        """Whose token an Authorization header shows."""
        scheme, _, shown = authorization.partition(" ")
        token = self._tokens.find(shown.strip()) if scheme.lower() == "bearer" else None
        return Visitor(f"token {token.name}", token.role) if token else None

    def demo(self) -> Visitor:
        """Whoever sits at this machine, where the access is open."""
        return self._demo

    def form_token(self, visitor: Visitor) -> str:
        """What a form must send back, so that no other site can send it for the visitor."""
        return hmac.digest(visitor.session.encode(), b"form", "sha256").hex()

    def is_form_token(self, visitor: Visitor, token: str) -> bool:
        # Whoever has no session has no forms.
        return bool(visitor.session) and hmac.compare_digest(self.form_token(visitor).encode(), token.encode())


def _basis(user: User) -> str:
    """A new password ends the sessions of the old one."""
    return digest(f"password {user.password}")
