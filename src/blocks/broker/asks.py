"""What can be asked of a broker besides messages: one table of verbs, each with the right that it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from blocks.core.errors import ConfigError

from .errors import BadRequest, BrokerError, NotFound
from .message import TopicOptions
from .security import Identity

if TYPE_CHECKING:
    from .engine import Engine

Done = Callable[[Any], None]

PAGE = 5_000  # rows of one answer


def answer(engine: Engine, identity: Identity, verb: str, arguments: dict[str, Any], done: Done) -> None:
    """Call ``done`` with the answer to ``verb``, or with the ``BrokerError`` that says why there is none."""
    ask = _VERBS.get(verb)
    try:
        if ask is None:
            raise NotFound(f"there is nothing to ask by the name {verb}; known are {', '.join(sorted(_VERBS))}")
        ask(engine, identity, dict(arguments), done)
    except BrokerError as error:
        done(error)
    except (ConfigError, TypeError, ValueError, KeyError) as error:
        done(BadRequest(f"{verb} does not take these arguments: {error}"))


def _page(rows: list[dict[str, Any]], arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows from ``skip`` on, as many as fit into a frame."""
    skip = int(arguments.get("skip") or 0)
    return rows[max(0, skip) : max(0, skip) + PAGE]


def _topics(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    rows = engine.topics(str(arguments.get("pattern", ">")))
    allowed = [row for row in rows if identity.may("subscribe", row["topic"]) or identity.may("manage", row["topic"])]
    done(_page(allowed, arguments))


def _groups(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    identity.require("manage", ">")
    done(_page(engine.groups(), arguments))


def _lag(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    identity.require("manage", ">")
    done(_page(engine.lag(arguments.get("group")), arguments))


def _stats(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    identity.require("manage", ">")
    done({**engine.stats(), "status": engine.status.name, "damage": list(engine.damage)})


def _configure(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    topic = str(arguments.pop("topic"))
    identity.require("manage", topic)
    options = TopicOptions(**arguments)
    engine.configure(topic, options)
    done(asdict(options))


def _delete_topic(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    topic = str(arguments["topic"])
    identity.require("manage", topic)
    engine.delete_topic(topic)
    done(None)


def _delete_group(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    identity.require("manage", ">")
    engine.delete_group(str(arguments["group"]))
    done(None)


def _bind(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    identity.require("manage", str(arguments["source"]))
    identity.require("manage", str(arguments["target"]))
    engine.bind(arguments["source"], arguments["target"], arguments.get("headers"), arguments.get("match", "all"))
    done(None)


def _unbind(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    identity.require("manage", str(arguments["source"]))
    engine.unbind(arguments["source"], arguments["target"], arguments.get("headers"), arguments.get("match", "all"))
    done(None)


def _bindings(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    identity.require("manage", ">")
    done(_page(engine.bindings(), arguments))


def _redrive(engine: Engine, identity: Identity, arguments: dict[str, Any], done: Done) -> None:
    identity.require("manage", ">")
    engine.redrive(str(arguments["group"]), arguments.get("limit"), done)


_VERBS: dict[str, Callable[[Engine, Identity, dict[str, Any], Done], None]] = {
    "topics": _topics,
    "groups": _groups,
    "lag": _lag,
    "stats": _stats,
    "configure": _configure,
    "delete-topic": _delete_topic,
    "delete-group": _delete_group,
    "bind": _bind,
    "unbind": _unbind,
    "bindings": _bindings,
    "redrive": _redrive,
}
