"""The keys of the record: one that signs seals (Ed25519), and those that encrypt the patients' words (AES-256-GCM).

A signing key is a PEM file, its public half the file of the same name with `.pub`: who has that can verify, and forge nothing.
Text keys stand in one file, a line each, `name key` with the key in base64. The first encrypts, all decrypt; a new one is put
first, and an old one may go when `audit rotate` has encrypted everything anew. Files are read once, at the start.
"""

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from guardrail.errors import ConfigError

_NONCE = 12  # bytes, the size that GCM is made for; random, so a key is good for about 2**32 texts


class SigningKey:
    """Signs seals. `name` is the beginning of the public key's hash, as seals name their key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())
        self.name = self.public.name

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    @classmethod
    def new(cls) -> "SigningKey":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> "SigningKey":
        """Raises ConfigError."""
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{path}: is not a signing key; make one with guardrail audit signing-key {path}")
        return cls(key)

    def write(self, path: Path) -> Path:
        """Write both halves; the path of the public one. Raises ConfigError where the file is there already."""
        private = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = path.with_name(path.name + ".pub")
        _write_new(path, private, 0o600)
        _write_new(public, self.public.pem(), 0o644)
        return public


class PublicKey:
    """Tells whether a seal is ours."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.name = hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]

    def fits(self, signature: bytes, message: bytes) -> bool:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def read(cls, path: Path) -> "PublicKey":
        """Raises ConfigError."""
        try:
            key = load_pem_public_key(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError:
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError(f"{path}: is not a public key for seals; guardrail audit signing-key writes one beside the signing key")
        return cls(key)


@dataclass(frozen=True, slots=True)
class TextKeys:
    """Encrypts and decrypts words. `names` in the file's order: the first is the one that encrypts."""

    names: Sequence[str]
    keys: Mapping[str, bytes]

    @property
    def current(self) -> str:
        return self.names[0]

    def encrypt(self, text: bytes, place: str) -> tuple[str, bytes]:
        """The key's name and the encrypted text, which can be decrypted for the same place only."""
        nonce = os.urandom(_NONCE)
        return self.current, nonce + AESGCM(self.keys[self.current]).encrypt(nonce, text, place.encode())

    def decrypt(self, name: str, data: bytes, place: str) -> bytes | None:
        """The text, or None where the key is not here or the text is not what was encrypted."""
        if name not in self.keys:
            return None
        try:
            return AESGCM(self.keys[name]).decrypt(data[:_NONCE], data[_NONCE:], place.encode())
        except InvalidTag:
            return None

    @classmethod
    def read(cls, path: Path) -> "TextKeys":
        """Raises ConfigError."""
        try:
            lines = path.read_text("utf-8").splitlines()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: is not a file of text keys") from None
        keys: dict[str, bytes] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _, value = line.strip().partition(" ")
            try:
                key = base64.b64decode(value, validate=True)
            except binascii.Error:
                key = b""
            if len(key) != 32 or name in keys:
                raise ConfigError(f"{path}:{number}: is not a name and a key of 32 bytes; guardrail audit text-key {path} adds one")
            keys[name] = key
        if not keys:
            raise ConfigError(f"{path}: has no key; guardrail audit text-key {path} adds one")
        return cls(tuple(keys), keys)


def add_text_key(path: Path) -> str:
    """Put a new key first in the file, which is made if need be; its name. Raises ConfigError."""
    before = b""
    if path.exists():
        TextKeys.read(path)  # never add to what is something else
        before = path.read_bytes()
    name = secrets.token_hex(4)
    line = f"{name} {base64.b64encode(os.urandom(32)).decode()}\n".encode()
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    # Replaced whole: half a file of keys would lose texts.
    _write_new(fresh, line + before, 0o600)
    fresh.replace(path)
    return name


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise ConfigError(f"{path}: is there already; a key is never overwritten") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
