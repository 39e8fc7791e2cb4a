"""Who is let in, on both stores: sessions that really end, tokens that can be taken away, and guesses that are counted for all replicas."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrail.dashboard.access import Access
from guardrail.dashboard.passwords import hash_password
from guardrail.dashboard.people import Role, User, Visitor
from guardrail.dashboard.sessions import Begun
from guardrail.dashboard.tables import Tables
from guardrail.dashboard.throttle import PER_NAME, WINDOW_SECONDS, TooManyTries
from guardrail.dashboard.tokens import Tokens
from guardrail.errors import StoreError
from tests.dashboard.conftest import Clock

PASSWORD = "correct horse"
HASH, OTHER_HASH = hash_password(PASSWORD), hash_password("another one")
IDLE, LONGEST = 600.0, 3600.0


class Replicas:
    """Processes with one store and one clock."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self._clock = clock
        self._tables: list[Tables] = []

    def tables(self) -> Tables:
        self._tables.append(Tables(self.url))
        return self._tables[-1]

    def __call__(self, password: str = HASH, role: Role = Role.REVIEWER, provider: str | None = None) -> Access:
        return self.of({"nurse": User("nurse", role, password)}, provider)

    def of(self, users: dict[str, User], provider: str | None = None) -> Access:
        return Access(users, self.tables(), provider=provider, idle_seconds=IDLE, session_seconds=LONGEST, clock=self._clock)

    def close(self) -> None:
        for tables in self._tables:
            tables.close()


@pytest.fixture
def replica(url: str, clock: Clock) -> Iterator[Replicas]:
    replicas = Replicas(url, clock)
    yield replicas
    replicas.close()


def signed_in(access: Access, before: str = "") -> str:
    secret = access.sign_in("nurse", PASSWORD, "10.0.0.1", before)
    assert secret is not None
    return secret


def test_a_session_is_known_to_every_replica_until_it_is_signed_out(replica: Replicas, clock: Clock) -> None:
    one, two = replica(), replica()
    secret = signed_in(one)

    assert two.visitor(secret) == Visitor("nurse", Role.REVIEWER, secret, signed_in=True)
    two.sign_out(secret)
    assert one.visitor(secret) is None


def test_a_session_ends_when_nobody_uses_it(replica: Replicas, clock: Clock) -> None:
    access = replica()
    secret = signed_in(access)

    for _ in range(3):
        clock.now += IDLE - 1
        assert access.visitor(secret) is not None
    clock.now += IDLE + 1
    assert access.visitor(secret) is None


def test_a_page_that_refreshes_itself_does_not_keep_a_session_alive(replica: Replicas, clock: Clock) -> None:
    access = replica()
    secret = signed_in(access)

    clock.now += IDLE - 1
    assert access.visitor(secret, seen=False) is not None
    clock.now += 2
    assert access.visitor(secret, seen=False) is None


def test_a_session_ends_after_its_time_whatever_was_done(replica: Replicas, clock: Clock) -> None:
    access = replica()
    secret = signed_in(access)
    begin = clock.now

    while clock.now + IDLE / 2 < begin + LONGEST:
        clock.now += IDLE / 2
        assert access.visitor(secret) is not None
    clock.now = begin + LONGEST
    assert access.visitor(secret) is None


def test_signing_in_makes_a_new_session_and_ends_the_one_before(replica: Replicas, clock: Clock) -> None:
    access = replica()
    first = signed_in(access)

    second = signed_in(access, before=first)

    assert second != first
    assert access.visitor(first) is None
    assert access.visitor(second) is not None


def test_a_secret_that_was_made_up_is_nobody(replica: Replicas, clock: Clock) -> None:
    access = replica()
    secret = signed_in(access)

    assert [access.visitor(s) for s in ("", "x", secret + "x", secret[:-1], "é")] == [None] * 5


def test_the_store_holds_no_secret_that_lets_in(replica: Replicas, clock: Clock) -> None:
    access, tables = replica(), replica.tables()
    secret = signed_in(access)
    shown, _ = Tokens(tables, clock).create("grafana", Role.VIEWER, "me", 60)
    begun = access.begin_sign_in(Begun("state", "nonce", "verifier", "/-/dashboard"))

    names = ("access_sessions", "access_tokens", "access_sign_ins", "access_tries")
    kept = repr([tables.use(lambda database, n=name: database.execute(f"SELECT * FROM {n}")) for name in names])  # type: ignore[misc]  # binds the loop's name

    assert "nurse" in kept
    assert all(given not in kept for given in (secret, shown, begun, PASSWORD))


def test_a_new_password_or_no_user_any_more_ends_the_sessions(replica: Replicas, clock: Clock) -> None:
    secret = signed_in(replica())

    assert replica().visitor(secret) is not None
    assert replica(OTHER_HASH).visitor(secret) is None
    assert replica.of({}).visitor(secret) is None


def test_a_role_that_was_changed_holds_at_once(replica: Replicas, clock: Clock) -> None:
    secret = signed_in(replica())

    visitor = replica(role=Role.VIEWER).visitor(secret)

    assert visitor is not None
    assert visitor.role is Role.VIEWER


def test_sessions_of_a_single_sign_on_rest_on_its_provider(replica: Replicas, clock: Clock) -> None:
    access = replica(provider="https://one guardrail")
    secret = access.admit("ann@clinic.example", Role.ADMIN)

    assert access.visitor(secret) == Visitor("ann@clinic.example", Role.ADMIN, secret, signed_in=True)
    assert replica(provider="https://two guardrail").visitor(secret) is None
    assert replica().visitor(secret) is None


def test_nobody_of_a_single_sign_on_passes_for_a_user_of_the_settings(replica: Replicas, clock: Clock) -> None:
    access = replica(provider="https://one guardrail")

    visitor = access.visitor(access.admit("nurse", Role.VIEWER))

    assert visitor is not None
    assert (visitor.name, visitor.role) == ("nurse (single sign-on)", Role.VIEWER)


def test_a_sign_in_at_a_provider_can_be_finished_once_and_in_time(replica: Replicas, clock: Clock) -> None:
    access, begun = replica(), Begun("state", "nonce", "verifier", "/-/dashboard/review")
    first, second = access.begin_sign_in(begun), access.begin_sign_in(begun)

    assert replica().end_sign_in(first) == begun
    assert access.end_sign_in(first) is None
    clock.now += 601
    assert access.end_sign_in(second) is None


def test_a_form_token_is_good_for_its_session_only(replica: Replicas, clock: Clock) -> None:
    access = replica()
    one, two = (Visitor("nurse", Role.REVIEWER, secret) for secret in ("one", "two"))
    token = access.form_token(one)

    assert replica().is_form_token(one, token)
    assert not access.is_form_token(two, token)
    assert not access.is_form_token(one, "")
    program = Visitor("token x", Role.ADMIN)
    assert not access.is_form_token(program, access.form_token(program))


def test_wrong_passwords_are_throttled_at_every_replica_and_the_right_one_waits_too(replica: Replicas, clock: Clock) -> None:
    for _ in range(10):
        assert replica().sign_in("nurse", "guess", "10.0.0.1") is None

    restarted = replica()
    with pytest.raises(TooManyTries) as caught:
        restarted.sign_in("nurse", PASSWORD, "10.0.0.1")
    assert caught.value.seconds == int(WINDOW_SECONDS) + 1
    assert restarted.sign_in("nurse", PASSWORD, "10.0.0.2") is not None
    clock.now += WINDOW_SECONDS + 1
    assert restarted.sign_in("nurse", PASSWORD, "10.0.0.1") is not None


def test_guesses_at_one_name_from_many_addresses_are_throttled(tmp_path: Path, clock: Clock) -> None:
    replica = Replicas(f"sqlite:///{tmp_path}/audit.db", clock)
    access = replica()
    for n in range(PER_NAME):
        assert access.sign_in("nurse", "guess", f"10.0.1.{n}") is None

    with pytest.raises(TooManyTries):
        access.sign_in("nurse", PASSWORD, "10.0.2.1")
    replica.close()


def test_right_passwords_do_not_count(replica: Replicas, clock: Clock) -> None:
    access = replica()

    assert all(access.sign_in("nurse", PASSWORD, "10.0.0.1") for _ in range(12))


def test_guesses_at_the_same_time_count_too(replica: Replicas, clock: Clock) -> None:
    """Twenty at once may not slip through because none has failed yet."""
    replica().visitor("x")  # the tables are there
    found: list[object] = []

    def guess() -> None:
        try:
            found.append(replica().sign_in("nurse", "guess", "10.0.0.1"))
        except TooManyTries:
            found.append("later")

    threads = [threading.Thread(target=guess) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 20
    assert found.count(None) <= 10


def test_a_token_is_its_holder_until_it_is_revoked_or_expires(replica: Replicas, clock: Clock) -> None:
    access, tokens = replica(), Tokens(replica.tables(), clock)
    shown, token = tokens.create("grafana", Role.VIEWER, "ann", 60)
    revoked, other = tokens.create("old", Role.ADMIN, "ann", 600)

    assert access.holder(f"Bearer {shown}") == Visitor("token grafana", Role.VIEWER)
    assert access.holder(f"bearer  {revoked}") == Visitor("token old", Role.ADMIN)
    assert tokens.revoke(other.id)
    assert not tokens.revoke(other.id)
    assert access.holder(f"Bearer {revoked}") is None
    clock.now += 60
    assert access.holder(f"Bearer {shown}") is None
    assert {t.id: (t.state(clock.now), t.used_at) for t in tokens.all()} == {
        token.id: ("expired", clock.now - 60),
        other.id: ("revoked", clock.now - 60),
    }


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Bearer guardrail_0_x", "Basic bnVyc2U6Y29ycmVjdCBob3JzZQ==", "Bearer é"])
def test_what_is_no_token_is_nobody(replica: Replicas, header: str) -> None:
    assert replica().holder(header) is None


def test_while_the_store_is_away_nobody_is_let_in_and_then_again(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "store"
    folder.write_text("a file where the folder should be")
    replica = Replicas(f"sqlite:///{folder}/audit.db", clock)
    access = replica()

    with pytest.raises(StoreError):
        access.sign_in("nurse", PASSWORD, "10.0.0.1")
    with pytest.raises(StoreError):
        access.visitor("x")
    folder.unlink()
    assert access.visitor(signed_in(access)) is not None
    replica.close()
