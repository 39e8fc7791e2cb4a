"""Hashes of passwords: argon2id now, scrypt from before."""

import pytest

from guardrail.dashboard.passwords import hash_password, is_hash, is_password

HASH = hash_password("correct horse")
# As the version before argon2 wrote it.
SCRYPT = "scrypt$16384$8$5$AAAAAAAAAAAAAAAAAAAAAA$kSQ1bJYPD8Jgs7OVgip9Bc7Nv0GJkSsREzrHDUV_bZ4"


@pytest.mark.parametrize("kept", [HASH, SCRYPT], ids=["argon2", "scrypt"])
def test_a_password_fits_its_hash_only(kept: str) -> None:
    assert is_hash(kept)
    assert "correct" not in kept
    assert is_password("correct horse", kept)
    assert not is_password("Correct horse", kept)


def test_new_hashes_are_argon2id_as_owasp_asks_and_salted() -> None:
    assert HASH.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert hash_password("correct horse") != HASH


@pytest.mark.parametrize(
    "kept", ["", "correct horse", "scrypt$x$8$1$a$b", "argon2$1$2$3$a$b", "$argon2id$v=19$m=8,t=1,p=1$x$y", "scrypt$16384$8$5$*$*"]
)
def test_a_hash_that_cannot_be_read_fits_nothing(kept: str) -> None:
    assert not is_password("correct horse", kept)


@pytest.mark.parametrize("kept", ["", "correct horse", "scrypt$x$8$1$a$b", HASH.replace("argon2id", "argon2i")])
def test_what_is_no_hash_is_known(kept: str) -> None:
    assert not is_hash(kept)
