"""A page of HTML, or one SVG, of what a load measured. No scripts, no styles from elsewhere: it can be mailed and printed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .limit import Limit
from .result import TABLE, Result

WIDTH, HEIGHT, MARGIN = 720, 300, 56
Points = Sequence[tuple[float, float]]


def percentile_chart(result: Result) -> str:
    """An SVG of the latency at each percentile; the axis is drawn in nines, so that the tail is not a hair's breadth."""
    shares = [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999]
    points = [(float(at), result.quantile(share) * 1000) for at, share in enumerate(shares)]
    labels = [(float(at), f"{share * 100:g}%") for at, share in enumerate(shares)]
    return _chart("Latency by percentile, from the intended start", [("latency, ms", "#1f6feb", points)], labels, "ms")


def limit_chart(limit: Limit) -> str:
    """An SVG of response time and throughput against the intended rate; each line has a scale of its own, from zero."""
    rates = [(step.rate, f"{step.rate:.0f}") for step in limit.steps]
    answers = [(step.rate, step.result.throughput) for step in limit.steps]
    times = [(step.rate, step.result.quantile(0.99) * 1000) for step in limit.steps]
    top = max((value for _, value in answers), default=1.0) or 1.0
    slow = max((value for _, value in times), default=1.0) or 1.0
    scaled = [(rate, value * slow / top) for rate, value in answers]
    lines = [("p99, ms", "#cf222e", times), (f"answers/s (top {top:.0f})", "#1a7f37", scaled)]
    return _chart("Response time and throughput against load", lines, rates, "ms")


def page(result: Result | Limit, title: str) -> str:
    """The whole report as HTML."""
    chart = limit_chart(result) if isinstance(result, Limit) else percentile_chart(result)
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in _rows(result))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        "<style>body{font:15px/1.5 system-ui;margin:2rem;max-width:760px}th{text-align:left;font-weight:normal;padding-right:2rem}"
        "td{font-variant-numeric:tabular-nums}pre{overflow:auto}</style>"
        f"<h1>{escape(title)}</h1>{chart}<table>{rows}</table>"
        + (f"<pre>{escape(result.table())}</pre>" if isinstance(result, Limit) else "")
        + "<p>Latencies are counted from the moment a request was meant to begin, so that waiting is included.</p></html>"
    )


def svg(result: Result | Limit) -> str:
    """The chart alone."""
    return limit_chart(result) if isinstance(result, Limit) else percentile_chart(result)


def _rows(result: Result | Limit) -> list[tuple[str, str]]:
    if isinstance(result, Limit):
        broke = "none was found" if result.broke is None else f"{result.broke:.0f}/s"
        return [("highest rate that kept every objective", f"{result.rate:.0f}/s"), ("lowest that did not", broke)]
    rows = [("requests", f"{result.requests} of {result.intended}"), ("throughput", f"{result.throughput:.1f}/s")]
    rows += [("availability", f"{result.availability:.4%}")]
    rows += [(name, f"{result.figure(name) * 1000:.3f} ms") for name in (*TABLE, "max", "mean")]
    return rows + [(f"error {cause}", str(count)) for cause, count in result.causes.most_common()]


def _chart(title: str, lines: Sequence[tuple[str, str, Points]], marks: Sequence[tuple[float, str]], unit: str) -> str:
    xs = [at for at, _ in marks] or [0.0, 1.0]
    low, high = min(xs), max(xs)
    top = max((y for _, _, points in lines for _, y in points), default=1.0) or 1.0

    def x(value: float) -> float:
        return MARGIN + (value - low) / ((high - low) or 1.0) * (WIDTH - 2 * MARGIN)

    def y(value: float) -> float:
        return HEIGHT - MARGIN - value / top * (HEIGHT - 2 * MARGIN)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="system-ui" font-size="11">'
        f"<title>{escape(title)}</title>",
        f'<text x="{MARGIN}" y="18" font-size="14">{escape(title)}</text>',
    ]
    for part in range(5):
        value = top * part / 4
        out.append(f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{MARGIN - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g} {unit}</text>')
    for at, label in marks:
        out.append(f'<text x="{x(at):.1f}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{escape(label)}</text>')
    for number, (label, colour, points) in enumerate(lines):
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{MARGIN + 220 * number}" y="{HEIGHT - 10}" fill="{colour}">{escape(label)}</text>')
    return "".join(out) + "</svg>"
