"""What may be stored, for how long it is fresh, how old it is, and when a stale one may still be used (RFC 9111 §3, §4.2; RFC 5861)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from blocks.http.message import Section

from .dates import parse_date
from .directives import Directives, Parsed, fields_of, response_directives, seconds_of
from .entry import BOUNDED, HEURISTIC, IMMUTABLE, MUST_REVALIDATE, NO_CACHE, Entry

# RFC 9110 §15.1: the statuses whose responses a cache may keep by heuristic.
HEURISTICALLY_CACHEABLE = frozenset((200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501))
# The statuses whose caching rules this cache obeys, for must-understand (RFC 9111 §5.2.2.3).
UNDERSTOOD = frozenset((
    *range(200, 207), *range(300, 304), 305, 307, 308, *range(400, 419), 421, 422, 426, 428, 429, 431, 451, *range(500, 506), 511,
))  # fmt: skip
CDN_TARGETS = (b"cdn-cache-control",)  # RFC 9213 §3.1: the field that every CDN obeys


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """How one route is stored, where its origin leaves a choice.

    ``default_ttl`` holds where the origin gives no lifetime and there is nothing to guess from (nginx: proxy_cache_valid; 0: not
    stored). ``ttl`` overrules the origin. ``negative`` are lifetimes by status for errors that bring none. ``jitter`` shortens every
    lifetime of 10 s or more by a random share up to it, so that what was pulled together does not expire together. ``cookies``
    stores responses with Set-Cookie. ``rfc`` turns off what the safe profile adds to the standard.
    """

    default_ttl: float = 0.0
    ttl: float | None = None
    negative: dict[int, float] = field(default_factory=dict)
    jitter: float = 0.1
    heuristic: float = 0.1  # RFC 9111 §4.2.2: "a typical setting of this fraction might be 10%"
    heuristic_limit: float = 86400.0  # Traffic Server's heuristic_max_lifetime
    cookies: bool = False
    authorization: bool = False
    rfc: bool = False
    targets: tuple[bytes, ...] = CDN_TARGETS


class Asked(NamedTuple):
    """What matters of a request for storing its response."""

    method: str = "GET"
    authorized: bool = False  # it had Authorization
    cookies: bool = False  # it had Cookie
    no_store: bool = False  # its Cache-Control had no-store (RFC 9111 §5.2.1.5)
    plain_path: bool = True  # no byte of its path is one that origins and caches read differently


class Verdict(NamedTuple):
    """What is to be done with a response. ``refused`` is empty when it may be stored, else a token that says why not.

    ``lifetime``, ``revalidate``, ``on_error`` and ``flags`` are those of ``Entry``; ``omit`` are fields that must not be stored.
    """

    refused: str
    lifetime: float = 0.0
    revalidate: float = 0.0
    on_error: float = -1.0
    flags: int = 0
    omit: tuple[bytes, ...] = ()


def judge(asked: Asked, status: int, section: Section, policy: Policy, now: float, chance: float = 0.0) -> Verdict:
    """Whether and how a response is stored (RFC 9111 §3). ``now`` is wall time; ``chance`` in [0, 1) draws the jitter."""
    directives, targeted = response_directives(section, policy.targets)
    refused = _refusal(asked, status, section, directives, policy)
    if refused:
        return Verdict(refused)
    terms = _terms(directives)
    lifetime, guessed = _lifetime(asked, status, section, directives, terms.seconds, targeted, policy, now)
    if lifetime is None:
        if not (b"etag" in section.index or b"last-modified" in section.index) or status not in HEURISTICALLY_CACHEABLE:
            return Verdict("no-freshness")
        lifetime = 0.0
    if asked.method == "POST" and (guessed or not lifetime):
        return Verdict("method")  # RFC 9110 §9.3.3: only with explicit freshness
    lifetime = jittered(lifetime, policy, chance)
    flags = (HEURISTIC if guessed else 0) | terms.flags
    revalidate, on_error = terms.revalidate, terms.on_error
    if (
        not lifetime
        and not revalidate
        and on_error <= 0
        and not (b"etag" in section.index or b"last-modified" in section.index)
    ):
        return Verdict("stale")  # nothing to validate with and never fresh: it would only take room
    return Verdict("", lifetime, revalidate, on_error, flags, terms.omit)


class _Terms(NamedTuple):
    """What the directives of a response say by themselves. ``seconds``: s-maxage, else max-age (RFC 9111 §4.2.1)."""

    seconds: float | None
    revalidate: float
    on_error: float
    flags: int
    omit: tuple[bytes, ...]


def _terms(directives: Directives) -> _Terms:
    known: _Terms | None = directives.derived if isinstance(directives, Parsed) else None
    if known is not None:
        return known
    seconds = seconds_of(directives, "s-maxage")
    if seconds is None:
        seconds = seconds_of(directives, "max-age")
    omit = fields_of(directives, "no-cache") + fields_of(directives, "private")
    lasts = None if seconds is None else float(seconds)
    terms = _Terms(lasts, *_seconds_stale(directives), _flags(directives), omit)
    if isinstance(directives, Parsed):
        directives.derived = terms
    return terms


def jittered(lifetime: float, policy: Policy, chance: float) -> float:
    """The lifetime shortened by the policy's jitter; ``chance`` in [0, 1) draws by how much."""
    return lifetime - lifetime * policy.jitter * chance if lifetime >= 10.0 and policy.jitter else lifetime


def _refusal(asked: Asked, status: int, section: Section, directives: Directives, policy: Policy) -> str:
    """Why the response must not be stored, as a token for Cache-Status; "" when it may be."""
    index = section.index
    understands = "must-understand" in directives
    if status < 200 or status == 304 or (understands and status not in UNDERSTOOD):
        return "status"
    if asked.no_store:
        return "request-no-store"
    if "no-store" in directives and not understands:
        return "no-store"
    if "private" in directives and not directives["private"]:
        return "private"
    if asked.method not in ("GET", "POST"):
        return "method"
    if b"vary" in index and any(b"*" in line for line in index[b"vary"]) and _stars(index[b"vary"]):
        return "vary"
    if (
        asked.authorized
        and not policy.authorization
        and not ("public" in directives or "must-revalidate" in directives or "s-maxage" in directives)
    ):
        return "authorization"  # RFC 9111 §3.5
    if (
        b"set-cookie" in index
        and not policy.cookies
        and not policy.rfc
        and b"set-cookie" not in fields_of(directives, "private")
    ):
        return "set-cookie"
    return ""


def _stars(lines: list[bytes]) -> bool:
    return any(member.strip() == b"*" for line in lines for member in line.split(b","))


def _lifetime(
    asked: Asked,
    status: int,
    section: Section,
    directives: Directives,
    seconds: float | None,
    targeted: bool,
    policy: Policy,
    now: float,
) -> tuple[float | None, bool]:
    """(freshness lifetime in seconds or None, whether it was guessed): RFC 9111 §4.2.1, then the route's own rules."""
    index = section.index
    if policy.ttl is not None and asked.plain_path and status in HEURISTICALLY_CACHEABLE:
        return policy.ttl, False
    if seconds is not None:
        return seconds, False
    expires = None if targeted else index.get(b"expires")
    if expires is not None:
        return _until(expires, index.get(b"date"), now), False
    if not asked.plain_path or (asked.cookies and not policy.rfc):
        return None, False  # nothing but the origin's own word makes these reusable for others
    if status in policy.negative:
        return policy.negative[status], False
    if status not in HEURISTICALLY_CACHEABLE and "public" not in directives:
        return None, False
    modified = index.get(b"last-modified")
    if modified is not None:
        when = parse_date(modified[0], now)
        made = parse_date(index[b"date"][0], now) if b"date" in index else None
        if when is not None and "no-cache" not in directives:
            return min(
                policy.heuristic_limit, max(0.0, ((now if made is None else made) - when) * policy.heuristic)
            ), True
    if policy.default_ttl and status in HEURISTICALLY_CACHEABLE:
        return policy.default_ttl, False
    return None, False


def _until(expires: list[bytes], date: list[bytes] | None, now: float) -> float:
    """Expires minus Date (RFC 9111 §5.3); what is no date, or more than one, lies in the past; a bad Date counts as now."""
    when = parse_date(expires[0], now) if len(expires) == 1 else None
    if when is None:
        return 0.0
    made = parse_date(date[0], now) if date else None
    return max(0.0, when - (now if made is None else made))


def _flags(directives: Directives) -> int:
    flags = 0
    if "no-cache" in directives and not directives["no-cache"]:
        flags |= NO_CACHE
    if "must-revalidate" in directives or "proxy-revalidate" in directives:
        flags |= MUST_REVALIDATE
    elif "s-maxage" in directives:  # it forbids stale use too (§5.2.2.10), but for what its own origin allows beside it
        flags |= (
            BOUNDED if "stale-while-revalidate" in directives or "stale-if-error" in directives else MUST_REVALIDATE
        )
    if "immutable" in directives:
        flags |= IMMUTABLE
    return flags


def _seconds_stale(directives: Directives) -> tuple[float, float]:
    on_error = seconds_of(directives, "stale-if-error")
    return float(seconds_of(directives, "stale-while-revalidate") or 0), -1.0 if on_error is None else float(on_error)


def parse_age(lines: list[bytes] | None) -> int:
    """The Age of a response: its first member, 0 when that is no plain number (RFC 9111 §5.1); a huge one counts as 2**31."""
    if not lines:
        return 0
    first = lines[0].partition(b",")[0].strip()
    if not first.isdigit():
        return 0
    return min(int(first[:20]), 2**31)


def initial_age(section: Section, asked_at: float, got_at: float, wall: float) -> float:
    """corrected_initial_age of a response just received (RFC 9111 §4.2.3).

    ``asked_at`` and ``got_at`` are monotonic, ``wall`` is the wall time at ``got_at``. A date ahead of our clock counts as now.
    """
    index = section.index
    date = index.get(b"date")
    made = parse_date(date[0], wall) if date else None
    return corrected_age(made, parse_age(index.get(b"age")), got_at - asked_at, wall)


def corrected_age(made: int | None, age: int, took: float, wall: float) -> float:
    """The same from a Date and an Age that were read already; ``took`` is how long the origin took to answer."""
    received = age + took if took > 0.0 else float(age)
    if made is None:
        return received
    apparent = wall - made - 1.0  # Date has whole seconds: a response made now may look a second old
    return apparent if apparent > received else received


def is_fresh(entry: Entry, now: float, directives: Directives) -> bool:
    """Whether the entry answers a request with those Cache-Control directives as it is (RFC 9111 §4.2, §5.2.1). ``now`` is monotonic."""
    if entry.flags & NO_CACHE:
        return False
    age = entry.age(now)
    if not directives:
        return age < entry.lifetime
    if "no-cache" in directives and not (entry.flags & IMMUTABLE and age < entry.lifetime):
        return False
    limit = seconds_of(directives, "max-age")
    if limit is not None and age >= limit and not (entry.flags & IMMUTABLE and age < entry.lifetime):
        return False
    spare = seconds_of(directives, "min-fresh")
    if spare is not None and entry.lifetime - age < spare:
        return False
    if age < entry.lifetime:
        return True
    if "max-stale" in directives and not entry.flags & MUST_REVALIDATE:
        allowed = seconds_of(directives, "max-stale") if directives["max-stale"] is not None else 2**31
        return age - entry.lifetime <= (allowed or 0)
    return False


def may_revalidate_behind(entry: Entry, now: float, directives: Directives) -> bool:
    """Whether the stale entry is used while it is validated behind the client's back (RFC 5861 §3)."""
    if (
        not entry.revalidate
        or entry.flags & (NO_CACHE | MUST_REVALIDATE)
        or "no-cache" in directives
        or "max-age" in directives
    ):
        return False
    return entry.age(now) - entry.lifetime <= entry.revalidate


def may_serve_on_error(entry: Entry, now: float, directives: Directives, grace: float, answered: bool) -> bool:
    """Whether the stale entry is used because its origin failed (RFC 9111 §4.2.4, RFC 5861 §4).

    ``answered``: the origin answered with a 5xx, rather than not at all. Then stale-if-error, where it was given, is the limit;
    an origin that cannot be reached is also bridged for ``grace`` seconds. An error is never served in place of an error.
    """
    if entry.flags & (NO_CACHE | MUST_REVALIDATE) or entry.status >= 500:
        return False
    stale = entry.age(now) - entry.lifetime
    wanted = seconds_of(directives, "stale-if-error")
    limit = max(entry.on_error, -1.0 if wanted is None else float(wanted))
    if entry.flags & BOUNDED:
        return stale <= entry.on_error
    if not answered or limit < 0:
        limit = max(limit, grace)
    return stale <= limit
