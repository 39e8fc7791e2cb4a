"""Compiled phrases kept between starts, under the hash of all that they were made from.

Compiling takes longer than everything else at start-up. What is kept is plain data (never code), and only ever a short cut:
a file that is missing, damaged, somebody else's or open to others is passed over, and nothing fails when none can be written.
"""

import os
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import msgspec

from guardrail.engine import finder, lexicon, normalize, phrases
from guardrail.engine.finder import Compiled

_KEPT = 12  # revisions of some megabytes: those of a site that tries out changes, without filling its disk
_SUFFIX = ".lexicon"
_decode = msgspec.msgpack.Decoder(Compiled).decode


def _user_folder() -> Path | None:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guardrail"
    except RuntimeError:
        return None


USER_FOLDER = _user_folder()
"""Where this user's programs keep such files; None where there is no such place."""


def key_of(*parts: bytes) -> str:
    """The hash of what is compiled and of the code that does it."""
    digest = sha256(msgspec.__version__.encode())
    for part in (*(Path(str(module.__file__)).read_bytes() for module in (finder, lexicon, phrases, normalize)), *parts):
        digest.update(sha256(part).digest())
    return digest.hexdigest()


def read(folder: Path | None, key: str) -> Compiled | None:
    """What was kept under the key, if it can be trusted and read."""
    if folder is None:
        return None
    try:
        with (folder / (key + _SUFFIX)).open("rb") as file:
            status = os.fstat(file.fileno())
            if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
                return None
            content = file.read()
        hash_, body = content[:32], content[32:]
        return _sharing_numbers(_decode(body)) if sha256(body).digest() == hash_ else None
    except (OSError, msgspec.MsgspecError):
        return None


def _sharing_numbers(compiled: Compiled) -> Compiled:
    """The same with one object for each number: a decoder makes one for each place, ten megabytes of them."""
    number = list(range(max(len(compiled.filed), 1 + max((*compiled.pairs, *compiled.keys.values()), default=0)))).__getitem__
    return msgspec.structs.replace(
        compiled,
        pairs={number(a): {number(b): number(i) for b, i in under.items()} for a, under in compiled.pairs.items()},
        classes=[frozenset(map(number, keys)) for keys in compiled.classes],
    )


def write(folder: Path | None, key: str, compiled: Compiled) -> None:
    """Keep it for the next start, in place of the oldest."""
    if folder is None:
        return
    body = msgspec.msgpack.encode(compiled)
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            unfinished = Path(file.name)
            try:
                file.write(sha256(body).digest() + body)
                file.close()
                unfinished.replace(folder / (key + _SUFFIX))
            finally:
                unfinished.unlink(missing_ok=True)
        for old in sorted(folder.glob("*" + _SUFFIX), key=lambda p: p.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
