"""Undoes compression of a reply, with a bound on what comes out of it.

We ask the upstream for identity; some compress all the same. What cannot be decoded cannot be reviewed.
"""

import zlib

from guardrail.errors import UpstreamLost

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_RAW = -zlib.MAX_WBITS


class Decoder:
    """`feed` and `finish` for gzip and deflate. Raises UpstreamLost for broken data and for bombs."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._made = 0
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._started = False

    def feed(self, data: bytes) -> bytes:
        try:
            out = self._inflate.decompress(data, self._max - self._made + 1)
        except zlib.error as error:
            if self._started or not data:
                raise UpstreamLost(f"the upstream's compressed answer is broken: {error}") from None
            # "deflate" without the zlib header: wrong by RFC 9110, and common.
            self._inflate = zlib.decompressobj(_RAW)
            self._started = True
            return self.feed(data)
        self._started = True
        self._made += len(out)
        if self._inflate.unused_data:
            raise UpstreamLost("the upstream's compressed answer has more behind its end")
        if self._made > self._max:
            raise UpstreamLost(f"the upstream's answer is larger than {self._max} bytes when decompressed")
        return out

    def finish(self) -> bytes:
        if not self._inflate.eof:
            raise UpstreamLost("the upstream's compressed answer is cut off")
        return b""


def decoder_for(encodings: list[bytes], max_bytes: int) -> Decoder | None:
    """The decoder for the content-encoding headers; None where there is nothing to decode."""
    named = [e.strip().lower() for value in encodings for e in value.split(b",") if e.strip()]
    named = [e for e in named if e != b"identity"]
    if not named:
        return None
    if len(named) > 1 or named[0] not in (b"gzip", b"x-gzip", b"deflate"):
        name = named[0].decode("ascii", "replace")[:40]
        raise UpstreamLost(f"the upstream's answer is encoded as {name}, which cannot be read; turn its compression off")
    return Decoder(max_bytes)
