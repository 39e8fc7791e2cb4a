"""Passwords as the settings hold them: argon2id by argon2-cffi; hashes that older versions made with scrypt still fit.

`hash_password` and `is_password` take some 20 ms of CPU and 19 MiB: call them in a thread.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final

import argon2

# What OWASP asks of argon2id at least. Not more: logins run in the process that answers patients.
_HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_SCRYPT_MEMORY: Final = 64 * 2**20


def hash_password(password: str) -> str:
    """What the settings hold in place of a password: `$argon2id$v=19$m=...`."""
    return _HASHER.hash(password)


def is_password(password: str, kept: str) -> bool:
    """Whether it is the password of this hash. A hash that cannot be read fits nothing."""
    if kept.startswith("scrypt$"):
        return _is_scrypt(password, kept)
    try:
        return _HASHER.verify(kept, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def is_hash(kept: str) -> bool:
    """Whether `hash_password` could have written it, now or in an older version."""
    parts = kept.split("$")
    if parts[0] == "scrypt":
        return len(parts) == 6 and all(part.isdigit() for part in parts[1:4])
    try:
        return argon2.extract_parameters(kept).type is argon2.Type.ID
    except argon2.exceptions.InvalidHashError:
        return False


def _is_scrypt(password: str, kept: str) -> bool:
    """`scrypt$n$r$p$salt$hash`, salt and hash in base64 for addresses without padding."""
    try:
        _, n, r, p, salt, digest = kept.split("$")
        found = hashlib.scrypt(password.encode(), salt=_unb64(salt), n=int(n), r=int(r), p=int(p), maxmem=_SCRYPT_MEMORY, dklen=32)
        return hmac.compare_digest(found, _unb64(digest))
    except (ValueError, binascii.Error, MemoryError):
        return False


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
