"""What the routes are, told to others: an OpenAPI 3.1 document, and one static page of HTML. Both are made from the routes alone."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from .explain import service_name
from .route import Route
from .routes.template import Parameter
from .snapshot import Lane, Snapshot

PROBLEM = {"$ref": "#/components/schemas/Problem"}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "int": {"type": "integer", "minimum": 0},
    "uuid": {"type": "string", "format": "uuid"},
    "str": {"type": "string", "minLength": 1},
}
_ANY = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def openapi(snapshot: Snapshot, *, title: str = "API", version: str = "1", server: str = "") -> dict[str, Any]:
    """An OpenAPI 3.1 document of the routes. What services answer is not known here; what the gateway answers is."""
    paths: dict[str, dict[str, Any]] = {}
    schemes: dict[str, Any] = {}
    for lane in snapshot.lanes.values():
        path = _path(lane.route)
        item = paths.setdefault(path, {})
        for method in _methods(lane.route):
            if method in item:
                item[method].setdefault("x-also", []).append(lane.route.name)
            else:
                item[method] = _operation(lane, method, schemes)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": {"Problem": _problem_schema()}, **({"securitySchemes": schemes} if schemes else {})},
    }
    if server:
        document["servers"] = [{"url": server}]
    return document


def _path(route: Route) -> str:
    parts = [part if isinstance(part, str) else f"{{{part.name}}}" for part in route.template.segments]
    if route.template.rest is not None:
        parts.append(f"{{{route.template.rest}}}")
    return "/" + "/".join(parts) + ("/" if route.template.trailing and parts else "")


def _methods(route: Route) -> list[str]:
    if route.methods is None:
        return ["get", "post", "put", "patch", "delete"]
    return sorted(method.lower() for method in route.methods if method != "HEAD" and method.lower() in _ANY)


def _operation(lane: Lane, method: str, schemes: dict[str, Any]) -> dict[str, Any]:
    route = lane.route
    operation: dict[str, Any] = {"operationId": f"{method} {route.name}" if route.methods is None else route.name}
    if route.description:
        operation["summary"] = route.description
    if route.tags:
        operation["tags"] = list(route.tags)
    if route.options.get("deprecated"):
        operation["deprecated"] = True
    parameters = [_parameter(part) for part in route.template.segments if isinstance(part, Parameter)]
    if route.template.rest is not None:
        parameters.append({"name": route.template.rest, "in": "path", "required": True, "schema": {"type": "string"}})
    parameters += [_asked(name, wanted, "header") for name, wanted in route.headers.items()]
    parameters += [_asked(name, wanted, "query") for name, wanted in route.query.items()]
    if parameters:
        operation["parameters"] = parameters
    operation["responses"] = _responses(lane)
    security = _security(route.options, schemes)
    if security is not None:
        operation["security"] = security
    return operation


def _parameter(part: Parameter) -> dict[str, Any]:
    return {"name": part.name, "in": "path", "required": True, "schema": _SCHEMAS[part.kind]}


def _asked(name: str, wanted: Any, place: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if not isinstance(wanted, bool):
        schema["enum"] = [wanted] if isinstance(wanted, str) else list(wanted)
    return {"name": name, "in": place, "required": wanted is not False, "schema": schema}


def _responses(lane: Lane) -> dict[str, Any]:
    names = set(lane.plan.names)
    told: dict[str, Any] = {"default": {"description": f"What the service {service_name(lane)} answers."}}
    refusals = {
        "400": ("validate" in names, "The request does not match its schema."),
        "401": ("auth" in names, "No credential, or one that is not good."),
        "403": (bool(names & {"authorize", "access"}), "Not allowed for this consumer."),
        "413": ("accept" in names, "The body is too large."),
        "429": ("limit" in names, "A limit is reached; Retry-After says when to come again."),
        "503": ("shed" in names, "Too much is under way; Retry-After says when to come again."),
    }
    for status, (there, words) in refusals.items():
        if there:
            told[status] = {"description": words, "content": {"application/problem+json": {"schema": PROBLEM}}}
            if status == "429":
                field = {"schema": {"type": "string"}}
                told[status]["headers"] = {"RateLimit": field, "RateLimit-Policy": field, "Retry-After": field}
    return told


def _security(options: Mapping[str, Any], schemes: dict[str, Any]) -> list[dict[str, list[str]]] | None:
    auth = options.get("auth")
    if auth is None:
        return None
    if auth == "anonymous":
        return []
    names = [
        one for one in (auth if isinstance(auth, list | tuple) else [auth]) if isinstance(one, str) and one != "deny"
    ]
    for name in names:
        schemes.setdefault(name, {"type": "http", "scheme": "bearer", "description": f"The authenticator {name!r}."})
    scopes = options.get("scopes") or []
    return [{name: [scopes] if isinstance(scopes, str) else [str(scope) for scope in scopes]} for name in names]


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    properties = {"type": text, "title": text, "status": {"type": "integer"}, "detail": text}
    return {"type": "object", "description": "RFC 9457", "properties": properties}


def page(snapshot: Snapshot, *, title: str = "API") -> str:
    """One page of HTML with every route: no script, no other file."""
    rows: list[str] = []
    for lane in snapshot.lanes.values():
        route = lane.route
        methods = " ".join(method.upper() for method in _methods(route)) if route.methods else "any"
        limits = ", ".join(
            f"{rule.limit.rate} per {rule.limit.per}" for step in lane.plan.steps for rule in getattr(step, "rules", ())
        )
        cells = (methods, (route.hosts[0] if route.hosts else "") + route.template.text, route.description, limits,
                 " → ".join(lane.plan.names), service_name(lane))  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{head}</th>" for head in ("Method", "Path", "What", "Limits", "Steps", "Service"))
    cell = "td,th{text-align:left;padding:.3em .8em;border-bottom:1px solid #ccc}"
    style = "body{font:16px system-ui;margin:2em}table{border-collapse:collapse}" + cell
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
        f"<h1>{escape(title)}</h1><table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></html>\n"
    )
