"""The steps over real connections, where the server drives them without a task, and a certificate from a real handshake."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

import aiohttp
import pytest
import trustme
from joserfc import jws as jose
from joserfc.jwk import ECKey

from blocks.core.clock import SYSTEM
from blocks.gateway import Gateway, context_of, route
from blocks.gateway.auth import (
    Basic,
    Certificates,
    Introspection,
    Jwt,
    KeySet,
    RefreshedKeys,
    Rules,
    Signatures,
    hash_password,
    sign,
)
from blocks.gateway.consumer import Consumer
from blocks.gateway.idempotency import Idempotency, Settings
from blocks.gateway.records import DiskRecords
from blocks.http.message import Request, Response
from blocks.http.server import Server

OLD, NEW = (ECKey.generate_key("P-256", {"kid": kid}) for kid in ("old", "new"))
SCHEMA = {"type": "object", "required": ["n"]}


def keys(*made: ECKey) -> KeySet:
    return KeySet.from_jwks({"keys": [key.as_dict(private=False) for key in made]})


def token(key: ECKey) -> str:
    return str(
        jose.serialize_compact(
            {"alg": "ES256", "kid": key.kid}, json.dumps({"exp": SYSTEM.wall() + 60, "sub": "ann"}), key
        )
    )


async def echo(request: Request) -> Response:
    consumer = context_of(request).consumer
    await asyncio.sleep(0.01)
    return Response.json({"who": consumer.name if consumer else None, "body": (await request.read()).decode()})


async def test_steps_that_wait_are_driven_over_the_wire(tmp_path: Any) -> None:
    issued = [OLD]

    async def load() -> KeySet:
        await asyncio.sleep(0.01)
        return keys(*issued)

    async def introspect(shown: bytes) -> bytes:
        await asyncio.sleep(0.01)
        return json.dumps({"active": shown == b"opaque", "sub": "opie"}).encode()

    source = RefreshedKeys(load, cooldown=0.0)
    basic = Basic({"bob": ([hash_password("pw")], Consumer("bob"))})
    records = DiskRecords(tmp_path / "keys.db")
    signed = Signatures({"k": (b"s" * 32, Consumer("sue"))})
    gateway = Gateway(
        [
            route(
                "/all",
                echo,
                auth=[Jwt(source, Rules()), basic, signed],
                idempotency=Idempotency(Settings(), records, "all"),
                validate={"schema": SCHEMA},
            ),
            route("/opaque", echo, auth=Introspection(introspect), mirror=echo),
        ]
    )
    async with Server(gateway, "127.0.0.1:0", drain=1.0) as server, aiohttp.ClientSession(server.url) as client:

        async def post(path: str, body: str = '{"n":1}', **fields: str) -> tuple[int, Any]:
            headers = {
                "content-type": "application/json",
                **{name.replace("_", "-"): value for name, value in fields.items()},
            }
            async with client.post(path, data=body, headers=headers) as answer:
                return answer.status, await answer.json(content_type=None)

        assert await post("/all", authorization=f"Bearer {token(OLD)}") == (200, {"who": "ann", "body": '{"n":1}'})
        assert (await post("/all", authorization=f"Bearer {token(NEW)}"))[0] == 401
        issued.append(NEW)
        assert (await post("/all", authorization=f"Bearer {token(NEW)}"))[0] == 200
        assert (await post("/all", authorization="Basic Ym9iOnB3"))[1]["who"] == "bob"
        assert (await post("/all", authorization="Basic Ym9iOm5v"))[0] == 401
        many = await asyncio.gather(
            *(post("/all", authorization="Basic Ym9iOnB3", idempotency_key="k") for _ in range(10))
        )
        assert {status for status, _ in many} == {200}
        assert (await post("/all", body="{}", authorization="Basic Ym9iOnB3"))[0] == 422
        assert (await post("/opaque", authorization="Bearer opaque"))[1]["who"] == "opie"
        assert (await post("/opaque", authorization="Bearer other"))[0] == 401
        template = Request("POST", "/all", {"host": server.url.removeprefix("http://")}, b'{"n":2}')
        sign(template, "k", b"s" * 32, int(SYSTEM.wall()))
        fields = {name: value for name, value in template.headers.items() if name != "host"}
        assert (await post("/all", body='{"n":2}', **fields))[1]["who"] == "sue"
        assert (await post("/all", body='{"n":2}', **fields))[0] == 401


async def test_a_certificate_of_a_real_handshake_names_its_consumer() -> None:
    authority = trustme.CA()
    listener = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(listener)
    authority.configure_trust(listener)
    listener.verify_mode = ssl.CERT_OPTIONAL
    gateway = Gateway(
        [route("/", echo, auth=Certificates({"CN:robot": Consumer("robot"), "email:ann@example.org": Consumer("ann")}))]
    )
    async with Server(gateway, "127.0.0.1:0", tls=listener, drain=1.0) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        for made, wanted in (
            (authority.issue_cert("x.example", common_name="robot"), (200, "robot")), (authority.issue_cert("ann@example.org"), (200,
            "ann")),
            (authority.issue_cert("other.example"), (403, None)), (None, (401, None)),
        ):  # fmt: skip
            context = ssl.create_default_context()
            authority.configure_trust(context)
            if made is not None:
                made.configure_cert(context)
            async with aiohttp.ClientSession() as client, client.get(url, ssl=context) as answer:
                assert (answer.status, (await answer.json(content_type=None)).get("who")) == wanted
        stranger = ssl.create_default_context()
        authority.configure_trust(stranger)
        trustme.CA().issue_cert("robot", common_name="robot").configure_cert(stranger)
        async with aiohttp.ClientSession() as client:
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await client.get(url, ssl=stranger)
