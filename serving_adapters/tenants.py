"""Names of tenants as they come from outside: made short and printable, and few enough to keep and to show."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

LONGEST = 64  # characters of a name that is kept as it is
SHOWN = 32  # characters shown of one that is not
MARK = "~"  # stands before the digest, and in no name that is kept as it is
OTHER = "other"
BUCKETS = 64


def clean_tenant(raw: object, default: str = "default") -> str:
    """The name an account is kept under: `raw` itself where it is short and printable ASCII.

    Any other text becomes its printable beginning and a digest, so that different texts stay different tenants.
    Numbers are read as text; what is neither text nor a number, or is empty, becomes `default`.
    """
    if type(raw) is str:
        if raw and len(raw) <= LONGEST and raw.isascii() and raw.isprintable() and MARK not in raw:
            return raw
    elif isinstance(raw, bytes):
        raw = raw.decode("utf-8", "replace")
    elif isinstance(raw, int) and not isinstance(raw, bool):
        raw = hex(raw) if raw.bit_length() > 256 else str(raw)  # str of a huge number takes quadratic time
    if not isinstance(raw, str) or not raw:
        return default
    return raw if _is_plain(raw) else _digested(raw)


def _is_plain(text: str) -> bool:
    return len(text) <= LONGEST and text.isascii() and text.isprintable() and MARK not in text


def _digested(text: str) -> str:
    beginning = "".join(c if c.isascii() and c.isprintable() and c != MARK else "_" for c in text[:SHOWN])
    return f"{beginning}{MARK}{_digest(text)}"


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def overflow(name: str) -> str:
    """The shared name of a tenant that came when there were too many: one of `BUCKETS`."""
    return f"{OTHER}{MARK}{int(_digest(name), 16) % BUCKETS}"


class Labels:
    """Which tenants get a metric label of their own: the named ones, then the first that have come to stay.

    A label once given stays given, so that a series never jumps; the rest is `OTHER`. A name that is new for each
    request never gets one: it takes `after` finished requests.
    """

    def __init__(self, limit: int, named: Iterable[str] = (), after: int = 3) -> None:
        self.limit, self.after = limit, after
        self._given = set(sorted(named)[:limit])

    def of(self, name: str, finished: int) -> str:
        """The label of a tenant that finished so many requests."""
        if name in self._given:
            return name
        if finished < self.after or len(self._given) >= self.limit or MARK in name:
            return OTHER
        self._given.add(name)
        return name
