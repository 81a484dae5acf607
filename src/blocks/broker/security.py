"""Who may come in, and what they may do: users and tokens from a file, kept as hashes, each with patterns by verb.

Passwords are scrypt hashes (RFC 7914); tokens are long random strings, so SHA-256 suffices for them. Without a
guard every peer may do everything, and therefore only loopback is listened on.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from blocks.core.errors import ConfigError
from blocks.core.quantities import Rate, rate, size

from .errors import Denied
from .throttle import Throttle
from .topics import check_pattern, covers

Verb = Literal["publish", "subscribe", "manage"]

_SCRYPT = (2**14, 8, 1)  # OWASP's smaller scrypt settings: 16 MiB and some 50 ms a login
_CACHE = 4096  # decisions kept for an identity


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one client may use: rates and sizes; None where only the broker's own limits hold."""

    messages: Rate | None = None  # published messages
    bytes: Rate | None = None  # published bytes
    message_bytes: int | None = None


class Identity:
    """A peer that was let in, by name, with the topic patterns for each verb and the groups (shell globs) it may join."""

    __slots__ = ("_known", "_patterns", "bounds", "groups", "name", "throttle")

    def __init__(
        self,
        name: str,
        patterns: Mapping[Verb, tuple[str, ...]],
        bounds: Bounds | None = None,
        groups: tuple[str, ...] = ("*",),
    ) -> None:
        self.name = name
        self.groups = groups
        self.bounds = bounds or Bounds()
        limited = self.bounds.messages is not None or self.bounds.bytes is not None
        self.throttle = Throttle(self.bounds.messages, self.bounds.bytes) if limited else None  # of all its connections
        self._patterns = patterns
        self._known: dict[tuple[str, str], bool] = {}

    def may(self, verb: Verb, target: str) -> bool:
        """Whether ``verb`` is allowed on the topic or on every topic of the pattern ``target``."""
        known = self._known.get((verb, target))
        if known is None:
            known = any(covers(held, target) for held in self._patterns.get(verb, ()))
            if len(self._known) >= _CACHE:
                self._known.clear()
            self._known[verb, target] = known
        return known

    def require(self, verb: Verb, target: str) -> None:
        """Nothing, if ``verb`` is allowed on ``target``; else ``Denied``."""
        if not self.may(verb, target):
            raise self.denial(verb, target)

    def denial(self, verb: Verb, target: str) -> Denied:
        """The error that says that ``verb`` is not allowed on ``target``."""
        return Denied(f"{self.name} may not {verb} {target}")

    def require_group(self, group: str) -> None:
        """Nothing, if this peer may be a member of ``group``; else ``Denied``."""
        if not any(fnmatchcase(group, held) for held in self.groups):
            raise Denied(f"{self.name} may not join the group {group}")


EVERYTHING: dict[Verb, tuple[str, ...]] = dict.fromkeys(("publish", "subscribe", "manage"), (">", "$dead.>"))


class Anyone(Identity):
    """A peer of a broker without a guard: it may do everything."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("anyone", EVERYTHING)

    def may(self, verb: Verb, target: str) -> bool:
        """Always."""
        return True


class Guard:
    """Knows users by password and tokens by themselves, and gives each its ``Identity``.

    ``quick`` answers from tokens and from logins that succeeded before (so that a thousand clients that reconnect cost a
    thousand hashes of a microsecond); ``login`` does the slow hash and belongs in a thread.
    """

    __slots__ = ("_secret", "_seen", "_tokens", "_users")

    def __init__(self) -> None:
        self._users: dict[str, tuple[str, Identity]] = {}
        self._tokens: dict[bytes, Identity] = {}
        self._secret = secrets.token_bytes(32)
        self._seen: dict[bytes, Identity] = {}

    def __len__(self) -> int:
        return len(self._users) + len(self._tokens)

    def add_user(self, name: str, password: str, identity: Identity) -> None:
        """Let ``name`` in with the password whose hash ``password`` is (see ``hash_password``). Raises ``ConfigError``."""
        if password.split("$")[0] != "scrypt" or password.count("$") != 5:
            raise ConfigError(f"the password of {name} must be a hash: make one with `blocks broker passwd`")
        self._users[name] = (password, identity)

    def add_token(self, token: str, identity: Identity) -> None:
        """Let in whoever shows ``token``, given as itself or as ``sha256$HEX``. Raises ``ConfigError``."""
        if token.startswith("sha256$"):
            try:
                digest = bytes.fromhex(token[7:])
            except ValueError:
                raise ConfigError(
                    f"the token hash of {identity.name} is not sha256$ and 64 hexadecimal digits"
                ) from None
        else:
            if len(token) < 6:
                raise ConfigError(f"the token of {identity.name} is too short to be one: use at least 6 characters")
            digest = hashlib.sha256(token.encode()).digest()
        self._tokens[digest] = identity

    def become(self, other: Guard) -> None:
        """From now on let in whom ``other`` lets in, and nobody else."""
        self._users, self._tokens, self._seen = other._users, other._tokens, {}

    def quick(self, options: Mapping[str, Any]) -> Identity | None:
        """Who this is, if that can be said without a slow hash. Raises ``Denied`` for a token that nobody has."""
        token = options.get("token")
        if isinstance(token, str):
            found = self._tokens.get(hashlib.sha256(token.encode()).digest())
            if found is None:
                raise Denied("the token is not known")
            return found
        user, password = options.get("user"), options.get("password")
        if not isinstance(user, str) or not isinstance(password, str):
            raise Denied("this broker wants a token, or a user and a password")
        return self._seen.get(self._fingerprint(user, password))

    def login(self, options: Mapping[str, Any]) -> Identity:
        """Who this is, by user and password; takes some 50 ms. Raises ``Denied``, after as long for an unknown user."""
        user, password = str(options.get("user")), str(options.get("password"))
        seen = self._seen  # a login that began before ``become`` is not remembered after it
        held, identity = self._users.get(user, (_NOBODY, None))
        if not check_password(password, held) or identity is None:
            raise Denied("the user or the password is wrong")
        if len(seen) >= _CACHE:
            seen.clear()
        seen[self._fingerprint(user, password)] = identity
        return identity

    def _fingerprint(self, user: str, password: str) -> bytes:
        return hmac.digest(self._secret, f"{len(user)}:{user}{password}".encode(), "sha256")


def hash_password(password: str) -> str:
    """``password`` as ``scrypt$N$r$p$salt$hash``, with a fresh salt of 16 bytes."""
    salt = secrets.token_bytes(16)
    n, r, p = _SCRYPT
    digest = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p)
    return f"scrypt${n}${r}${p}${salt.hex()}${digest.hex()}"


def check_password(password: str, held: str) -> bool:
    """Whether ``held`` is a hash of ``password``; takes the same time for every wrong one."""
    _, n, r, p, salt, digest = held.split("$")
    made = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p))
    return hmac.compare_digest(made.hex(), digest)


def hash_token(token: str) -> str:
    """``token`` as ``sha256$HEX``, to be kept in a file instead of itself."""
    return "sha256$" + hashlib.sha256(token.encode()).hexdigest()


_NOBODY = "$".join(("scrypt", *map(str, _SCRYPT), "00" * 16, "00" * 64))


def read_guard(path: str | Path) -> Guard:
    """The guard that a file describes: TOML with ``[users.NAME]`` and ``[tokens.NAME]``, or one token a line.

    A line is ``TOKEN`` or ``TOKEN NAME`` and may do everything. Raises ``ConfigError`` that names the file and the place.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the token file: {error}") from error
    guard = Guard()
    if path.suffix == ".toml":
        _read_toml(guard, path, text)
    else:
        _read_lines(guard, path, text)
    if not len(guard):
        raise ConfigError(f"{path}: names no user and no token, so nobody could come in")
    return guard


def _read_lines(guard: Guard, path: Path, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise ConfigError(f"{path}:{number}: a line is a token, or a token and a name")
        guard.add_token(words[0], Identity(words[1] if len(words) > 1 else f"token-{number}", EVERYTHING))


def _read_toml(guard: Guard, path: Path, text: str) -> None:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    unknown = set(data) - {"users", "tokens"}
    if unknown:
        raise ConfigError(f"{path}: there is no section {sorted(unknown)[0]}; use [users.NAME] and [tokens.NAME]")
    for name, row in data.get("users", {}).items():
        guard.add_user(name, str(row.get("password", "")), _identity(path, name, row, "password"))
    for name, row in data.get("tokens", {}).items():
        guard.add_token(str(row.get("token", "")), _identity(path, name, row, "token"))


_ROW = {"groups", "publish", "subscribe", "manage", "messages", "bytes", "message_bytes"}


def _identity(path: Path, name: str, row: Mapping[str, Any], own: str) -> Identity:
    unknown = set(row) - _ROW - {own}
    if unknown:
        raise ConfigError(f"{path}: {name} has {sorted(unknown)[0]!r}; known are {', '.join(sorted(_ROW | {own}))}")
    patterns: dict[Verb, tuple[str, ...]] = {}
    verbs: tuple[Verb, ...] = ("publish", "subscribe", "manage")
    for verb in verbs:
        given = row.get(verb, [])
        if given is True:
            patterns[verb] = EVERYTHING[verb]
            continue
        if given is False:
            continue
        if not isinstance(given, list):
            raise ConfigError(f"{path}: {verb} of {name} must be a list of topic patterns, true or false")
        try:
            patterns[verb] = tuple(check_pattern(pattern) for pattern in given)
        except Exception as error:
            raise ConfigError(f"{path}: {verb} of {name}: {error}") from error
    bounds = Bounds(
        rate(row["messages"]) if "messages" in row else None,
        rate(row["bytes"]) if "bytes" in row else None,
        size(row["message_bytes"]) if "message_bytes" in row else None,
    )
    groups = row.get("groups", ["*"])
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise ConfigError(f"{path}: groups of {name} must be a list of names, where * stands for anything")
    return Identity(name, patterns, bounds, tuple(groups))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(host: str, guard: Guard | None) -> None:
    """Nothing if ``host`` is loopback or there is a guard; else ``ConfigError``: nobody opens a broker to all by accident."""
    if guard is None and not is_loopback(host):
        raise ConfigError(
            f"listening on {host} would let everybody who can reach it read and write every topic: "
            "give --token-file (and --tls-cert), or listen on 127.0.0.1"
        )
