"""The short way of a miss: a plain GET whose URL has nothing stored, or only the note that its answers are not storable.

It does what the steps lookup, miss and fetch do for such a request, in one coroutine; what turns out to be storable goes on as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocks.core.errors import Failure, Fault, UpstreamFault
from blocks.http.body import Stream
from blocks.http.message import Headers, Request, Response

from . import cache_status, steps
from .collapse import Abandoned, Flight
from .defence import is_plain_path
from .entry import Entry
from .rules import Route
from .ruling import Ruling, ruling_of
from .storing import pass_by
from .visit import Facts, Visit

if TYPE_CHECKING:
    from .edge import Edge


async def plain_miss(
    edge: Edge, request: Request, facts: Facts, route: Route, key: str, noted: Entry | None
) -> Response:
    """The origin's answer. Others who ask for the same meanwhile wait for it, unless a PASS was ``noted``."""
    if facts.loops:
        edge.refuse_loop(facts)
    flight = None
    if noted is None:
        flight = edge.flights[key] = Flight()
    asked_at = edge.now()
    try:
        admission = edge.admission
        if admission.bounded or admission.under_way >= admission.limit or edge.told is not None:
            edge.admit(request, request.target)
        else:
            admission.under_way += 1
            edge.counts.fills += 1
        headers = Headers.of(edge.forwarded(facts, request))
        asked = Request(
            "GET", request.target, headers, peer=request.peer, deadline=request.deadline, inform=request.inform
        )
        try:
            response = await edge.origin(asked)
        finally:
            admission.under_way -= 1
        ruling = ruling_of(facts.asked, response.status, response.headers.section, route, edge.clock)
        if ruling.verdict.refused:
            _refuse(edge, key, flight, noted, asked_at, response, ruling)
        else:
            asked_for = facts.asked
            if not edge.rfc and not is_plain_path(request.target.partition("?")[0]):
                asked_for = asked_for._replace(plain_path=False)
            visit = Visit(request, facts, request.target, key, route, asked_for, asked_at)
            visit.reason, visit.fetched_status = cache_status.URI_MISS, response.status
            outcome = await steps.received(edge, visit, flight or Flight(), response, asked_at)
            assert isinstance(outcome, Response)
            response = outcome
    except BaseException as error:
        if isinstance(error, Failure) and error.fault is not Fault.CLIENT:
            edge.counts.errors += 1
        if flight is not None:
            steps.crashed(edge, key, flight, error if isinstance(error, Failure) else Abandoned())
        raise
    if flight is not None:
        steps.landed(edge, key, flight)
    return response


def _refuse(
    edge: Edge, key: str, flight: Flight | None, noted: Entry | None, now: float, response: Response, ruling: Ruling
) -> None:
    """What is not stored goes to the one who asked, with Cache-Status, and is noted."""
    counts, status = edge.counts, response.status
    counts.miss(key)
    counts.refused += 1
    if status >= 500:
        if flight is not None:
            flight.crash(UpstreamFault(f"the origin answered {status}", reason="origin-error", status=status))
    elif noted is not None:
        noted.born = now
    else:
        pass_by(edge, key, ruling.asked, status, now)
    body = response.body
    size = len(body) if isinstance(body, bytes) else (body.length or 0) if isinstance(body, Stream) else 0
    counts.bytes_from_origin += size
    counts.bytes_served += size
    headers = response.headers
    headers.section = ruling.passed(headers.section, edge.name, cache_status.URI_MISS)
