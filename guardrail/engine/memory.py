"""What was read before, under keyed digests of the texts and never under the texts: bounded, what was asked for longest ago goes first.

Who makes one brings the key, at random and once a process, so that nobody can try texts against what is kept.
"""

from collections import OrderedDict
from collections.abc import Hashable
from hashlib import blake2b
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Memory(Generic[Value]):
    """One kind of thing, by a text and by all else (`of`) that it depends on."""

    def __init__(self, key: bytes, most: int) -> None:
        self._key = key
        self._most = most
        self._kept: OrderedDict[tuple[bytes, Hashable], Value] = OrderedDict()

    def place(self, text: str, of: Hashable) -> tuple[bytes, Hashable]:
        """Under what a thing is kept."""
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._key).digest(), of

    def get(self, place: tuple[bytes, Hashable]) -> Value | None:
        found = self._kept.get(place)
        if found is not None:
            self._kept.move_to_end(place)
        return found

    def keep(self, place: tuple[bytes, Hashable], value: Value) -> None:
        self._kept[place] = value
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
