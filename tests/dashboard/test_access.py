"""Users, sessions, form tokens and throttling."""

import base64
from collections.abc import Callable

import pytest

from guardrail.dashboard.access import SESSION_SECONDS, Access, Role, TooManyTries, User, Visitor, hash_password, is_hash, is_password

HASH = hash_password("correct horse")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def users(password: str = HASH) -> dict[str, User]:
    return {"nurse": User("nurse", Role.REVIEWER, password)}


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_a_password_fits_its_hash_only() -> None:
    assert is_hash(HASH)
    assert "correct" not in HASH
    assert is_password("correct horse", HASH)
    assert not is_password("Correct horse", HASH)


@pytest.mark.parametrize("kept", ["", "correct horse", "scrypt$x$8$1$a$b", "argon2$1$2$3$a$b", "scrypt$16384$8$5$*$*"])
def test_a_hash_that_cannot_be_read_fits_nothing(kept: str) -> None:
    assert not is_password("correct horse", kept)


def test_a_session_names_its_user_until_it_ends() -> None:
    clock = Clock()
    access = Access(users(), clock=clock)
    cookie = access.open_session(users()["nurse"])

    visitor = access.read_session(cookie)
    assert visitor is not None
    assert (visitor.name, visitor.role) == ("nurse", Role.REVIEWER)
    clock.now += SESSION_SECONDS + 1
    assert access.read_session(cookie) is None


@pytest.mark.parametrize("change", [lambda c: c + "x", lambda c: c.replace(".", "..", 1), lambda c: "", lambda c: "a.9999999999.b.c"])
def test_a_forged_session_is_nobody(change: Callable[[str], str]) -> None:
    access = Access(users())

    assert access.read_session(change(access.open_session(users()["nurse"]))) is None


def test_a_new_password_ends_the_sessions() -> None:
    cookie = Access(users()).open_session(users()["nurse"])

    assert Access(users()).read_session(cookie) is not None  # another replica, the same settings
    assert Access(users(hash_password("another one"))).read_session(cookie) is None


def test_a_form_token_is_good_for_its_session_only() -> None:
    access = Access(users())
    token = access.form_token(Visitor("nurse", Role.REVIEWER, "one"))

    assert access.is_form_token(Visitor("nurse", Role.REVIEWER, "one"), token)
    assert not access.is_form_token(Visitor("nurse", Role.REVIEWER, "two"), token)
    assert not access.is_form_token(Visitor("nurse", Role.REVIEWER, "one"), "")


def test_wrong_passwords_are_throttled_by_address_and_then_the_right_one_waits_too() -> None:
    access = Access(users())
    for _ in range(10):
        assert access.check("nurse", "guess", "10.0.0.1") is None

    with pytest.raises(TooManyTries):
        access.check("nurse", "correct horse", "10.0.0.1")
    assert access.check("nurse", "correct horse", "10.0.0.2") is not None


def test_basic_credentials() -> None:
    access = Access(users())

    assert access.check_basic(basic("nurse", "correct horse"), "a") is not None
    assert access.check_basic(basic("nurse", "wrong"), "a") is None
    assert access.check_basic(basic("nobody", "correct horse"), "a") is None
    assert access.check_basic("Basic ???", "a") is None
    assert access.check_basic("Bearer abc", "a") is None
