from blocks.http import Request, Response, Server, Upstream


async def hello(request: Request) -> Response:
    return Response.text(f"{request.method} {request.target}")


async def test_an_upstream_asks_a_server():
    async with Server(hello, "127.0.0.1:0") as server, Upstream(server.url) as upstream:
        response = await upstream(Request("GET", "/a?b"))
        assert (response.status, await response.read()) == (200, b"GET /a?b")
