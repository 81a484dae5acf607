"""Active health: what is asked of an endpoint, which answers are good, and how many in a row change the verdict.

Rules only, no I/O: ``probes.py`` sends the requests. Sources: HAProxy's ``check`` (rise, fall, inter), nginx Plus' ``health_check``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds, size
from blocks.http.message import Headers, Response

from .endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Health:
    """How endpoints are probed.

    ``mode`` "http" sends ``method path`` through the endpoint's handler; "tcp" only connects to its address. An answer is good when
    its status is in ``statuses`` (200–399: HAProxy, nginx Plus), every header in ``expect_headers`` matches its pattern
    and the body matches ``expect_body`` (regular expressions, searched; the body is read up to ``max_body``). ``fall`` bad ones in a row
    make an endpoint unhealthy, ``rise`` good ones healthy again (3 and 2: HAProxy); the very first probe decides alone.
    ``interval`` (2 s: HAProxy's inter) is spread by ± ``jitter`` of itself, so that many balancers do not probe in step;
    ``timeout`` (1 s: Kubernetes' timeoutSeconds) bounds one probe; at most ``parallel`` probes are under way.
    Durations take "2s". Raises ``ConfigError``.
    """

    path: str = "/"
    method: str = "GET"
    mode: Literal["http", "tcp"] = "http"
    interval: float | str = 2.0
    timeout: float | str = 1.0
    rise: int = 2
    fall: int = 3
    jitter: float = 0.1
    statuses: Collection[int] = range(200, 400)
    headers: Mapping[str, str] = field(default_factory=dict)
    expect_headers: Mapping[str, str] = field(default_factory=dict)
    expect_body: str | bytes | None = None
    max_body: int | str = 64 * 1024
    parallel: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", seconds(self.interval))
        object.__setattr__(self, "timeout", seconds(self.timeout))
        object.__setattr__(self, "max_body", size(self.max_body))
        object.__setattr__(self, "statuses", statuses_of(self.statuses))
        if self.mode not in ("http", "tcp"):
            raise ConfigError(f"a health check's mode is http or tcp, not {self.mode!r}")
        if not self.path.startswith("/") or re.search(r"[\x00-\x20\x7f]", self.path):
            raise ConfigError(f"a health check's path begins with / and holds no space, not {self.path!r}")
        if self.rise < 1 or self.fall < 1 or self.parallel < 1:
            raise ConfigError("rise, fall and parallel of a health check must be at least 1")
        if float(self.interval) <= 0 or float(self.timeout) <= 0:
            raise ConfigError("interval and timeout of a health check must be over 0")
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"jitter is a share of the interval, 0 or more and under 1, not {self.jitter!r}")
        Headers(self.headers)
        for pattern in [*self.expect_headers.values(), self.expect_body or ""]:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"{pattern!r} is not a regular expression: {error}") from None

    @classmethod
    def of(cls, value: Health | str | float | None) -> Health | None:
        """A health check from ``Health(…)``, an interval ("2s", 0.5) or a path ("/healthz"); None stays None."""
        if value is None or isinstance(value, Health):
            return value
        if isinstance(value, str) and value.startswith("/"):
            return cls(path=value)
        return cls(interval=value)


def statuses_of(statuses: Collection[int]) -> Collection[int]:
    """The statuses, checked; a range stays one. Raises ``ConfigError``."""
    if not statuses or min(statuses) < 100 or max(statuses) > 599:
        raise ConfigError(f"expected statuses lie between 100 and 599, not {statuses!r}")
    return statuses if isinstance(statuses, range) else frozenset(statuses)


def objection(health: Health, response: Response, body: bytes) -> str:
    """Why an answer is not a good one; empty when it is."""
    if response.status not in health.statuses:
        return f"status {response.status}"
    for name, pattern in health.expect_headers.items():
        value = response.headers.get(name)
        if value is None:
            return f"header {name} is missing"
        if not re.search(pattern, value):
            return f"header {name} does not match {pattern!r}"
    wanted = health.expect_body
    if wanted is not None:
        pattern_bytes = wanted.encode() if isinstance(wanted, str) else wanted
        if not re.search(pattern_bytes, body):
            return f"body does not match {wanted!r}"
    return ""


def verdict(endpoint: Endpoint, problem: str, health: Health) -> bool | None:
    """Count a probe's outcome (``problem`` is empty when it was good); True or False when the verdict changes to well or not, else None."""
    first = not endpoint.probed
    endpoint.probed = True
    endpoint.probes += 1
    endpoint.probe_reason = problem
    if problem:
        endpoint.passes = min(endpoint.passes, 0) - 1
        if endpoint.well and (first or -endpoint.passes >= health.fall):
            return False
    else:
        endpoint.passes = max(endpoint.passes, 0) + 1
        if not endpoint.well and endpoint.passes >= health.rise:
            return True
    return None
