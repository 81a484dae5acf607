"""The filters of a stack's file in their order, each with the reason why it stands there and not one further in.

A file says which filters there are, never their order: one that is right is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blocks.core.config.complaint import complaints_of
from blocks.core.errors import BlocksError, ConfigError
from blocks.http.handler import Filter

from .bench import Bench, placed
from .kinds.apps import found
from .tables import AgainTable, CompressTable, EdgeTable, RequestIdTable, ServerTable, TraceTable, given

Steps = tuple[tuple[str, Callable[[], "Filter | None"]], ...]
"""The key of each filter, and what makes it, outermost first."""


def before_server(table: ServerTable, bench: Bench) -> list[Filter]:
    """The filters of ``[servers.NAME]``, outermost first. What is wrong is noted.

    The access log stands before all of them, as the server's own: it sees what any of them refuses.
    """
    steps: Steps = (
        ("trusted", lambda: _real_client(table, bench)),  # first: whatever comes after it may ask who the client is
        ("request_id", lambda: _request_id(table)),  # before all that can refuse or fail, so that it is told by name
        ("trace", lambda: _trace(table)),  # beside it; before the timeout, so that what took too long is traced
        ("timeout", lambda: _timeout(table)),  # around everything that can take time
        ("compress", lambda: _compress(table)),  # last: what an outer filter adds to an answer is in its head alone
    )
    return _made(table, steps, bench)


def before_edge(table: EdgeTable, bench: Bench) -> list[Filter]:
    """The guards of ``[edges.NAME]``, outermost first. What is wrong is noted."""
    steps: Steps = (
        ("countries", lambda: _countries(table, bench)),  # first: nothing of the request is worth reading from there
        ("hotlinks", lambda: _hotlinks(table)),  # a look at one field, cheaper than a signature
        ("signed", lambda: _signed(table, bench)),  # last: it takes off the signature, so all are one stored answer
    )
    return _made(table, steps, bench)


def again(table: AgainTable | int, bench: Bench) -> Filter | None:
    """The filter that asks an upstream again; None for no further try. Raises ``ConfigError``."""
    from blocks.http.filters import Budget, retry

    if isinstance(table, int):
        return retry(table + 1, random=bench.draw()) if table else None
    settings: dict[str, Any] = given(table, "tries", "statuses", "methods", "wait", "longest", "buffer")
    if "methods" in settings:
        settings["methods"] = [method.upper() for method in settings["methods"]]
    budget = {"ratio": table.budget, "minimum": table.reserve}
    return retry(
        **settings,
        budget=Budget(**{name: value for name, value in budget.items() if value is not None}),
        random=bench.draw(),
    )


def _made(table: ServerTable | EdgeTable, steps: Steps, bench: Bench) -> list[Filter]:
    filters: list[Filter] = []
    for key, make in steps:
        try:
            filter = make()
        except BlocksError as error:  # MissingExtra is no ConfigError
            said = error if isinstance(error, ConfigError) else ConfigError(str(error))
            at = (*bench.at, key)
            bench.complaints += [placed(one, at, getattr(table, key)) for one in complaints_of(said, at)]
            continue
        if filter is not None:
            filters.append(filter)
    return filters


def _real_client(table: ServerTable, bench: Bench) -> Filter | None:
    from blocks.http.filters import real_client

    if not table.trusted:
        if table.believe is not None:
            bench.complain(("believe",), "it says which fields of trusted proxies are read: give trusted, too")
        return None
    return real_client(table.trusted, **given(table, "believe"))


def _request_id(table: ServerTable) -> Filter | None:
    from blocks.http.filters import request_id

    if not table.request_id:
        return None
    return request_id(**given(table.request_id)) if isinstance(table.request_id, RequestIdTable) else request_id()


def _trace(table: ServerTable) -> Filter | None:
    from blocks.http.filters import trace_context

    if not table.trace:
        return None
    return trace_context(**given(table.trace)) if isinstance(table.trace, TraceTable) else trace_context()


def _timeout(table: ServerTable) -> Filter | None:
    from blocks.http.filters import timeout

    return None if table.timeout is None else timeout(table.timeout)


def _compress(table: ServerTable) -> Filter | None:
    from blocks.http.filters import compress

    if table.compress is False:
        return None
    if isinstance(table.compress, CompressTable):
        return compress(**given(table.compress))
    return compress() if table.compress is True else compress(table.compress)


def _countries(table: EdgeTable, bench: Bench) -> Filter | None:
    if table.countries is None:
        return None
    from blocks.edge.guards import GeoGuard

    lookup = found("lookup", table.countries.lookup, bench)
    return GeoGuard(lookup, allow=table.countries.allow, deny=table.countries.deny)


def _hotlinks(table: EdgeTable) -> Filter | None:
    if table.hotlinks is None:
        return None
    from blocks.edge.guards import HotlinkGuard

    return HotlinkGuard(**given(table.hotlinks))


def _signed(table: EdgeTable, bench: Bench) -> Filter | None:
    if table.signed is None:
        return None
    from blocks.edge.signed import SignedUrls

    prefixes = {} if table.signed.prefixes is None else {"prefixes": tuple(table.signed.prefixes)}
    return SignedUrls(table.signed.secrets, clock=bench.clock, **prefixes)
