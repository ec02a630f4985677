"""The client against answers that a real Neutron gives seldom; tests/neutron has the rest on a real one."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from podvif.errors import Refused, Retry
from podvif.model import PortRequest
from podvif.neutron import access
from podvif.neutron.client import Neutron
from tests.unit.neutron.test_documents import PORT

REQUEST = PortRequest("net", "node-1", "uid-1", "compute:kuryr", "default/pod eth0", tags=("podvif",))

Answer = tuple[int, Any]


class Scripted(ThreadingHTTPServer):
    """A server that answers as `answer` says, and remembers what it was asked.

    Attributes:
        answer: from method, path and query to status and document; a text is sent as it is, None ends the connection.
        asked: method, path, query and body of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[str, str, dict[str, str]], Answer] = lambda *_: (404, {})
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = parts.path.removeprefix("/v2.0")
        assert path != parts.path
        self.server.asked.append((self.command, path, query, json.loads(body) if body else None))
        status, document = self.server.answer(self.command, path, query)
        if document is None:
            self.close_connection = True
            return
        text = (document if isinstance(document, str) else json.dumps(document)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815  http.server's names

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
async def client(server: Scripted, tmp_path: Path) -> "Any":
    url = f"http://127.0.0.1:{server.server_address[1]}"
    file = tmp_path / "kuryr.conf"
    file.write_text(f"[neutron]\nauth_type = none\nendpoint_override = {url}/v2.0/\nrequest_timeout = 5\n")
    made = Neutron(access.load([str(file)]))
    yield made
    await made.close()


def neutron(*, post: Answer, extensions: tuple[str, ...] = ()) -> Callable[[str, str, dict[str, str]], Answer]:
    """A Neutron without ports that answers POST with `post`."""

    def answer(method: str, path: str, query: dict[str, str]) -> Answer:
        if path == "/extensions":
            return 200, {"extensions": [{"alias": alias} for alias in extensions]}
        return post if method == "POST" else (200, {"ports": []})

    return answer


async def test_pages(server: Scripted, client: Neutron) -> None:
    """A list that the server gives in pages of its own is read to its end."""
    ids = [f"{number:03}" for number in range(7)]

    def answer(method: str, path: str, query: dict[str, str]) -> Answer:
        start = ids.index(query["marker"]) + 1 if "marker" in query else 0
        page = ids[start : start + 3]
        links = [{"rel": "next", "href": "http://elsewhere/"}] if start + 3 < len(ids) else []
        return 200, {"ports": [PORT | {"id": one} for one in page], "ports_links": links}

    server.answer = answer
    assert [port.id for port in await client.our_ports("podvif")] == ids
    assert len(server.asked) == 3
    assert {query["device_owner"] for _, _, query, _ in server.asked} == {"compute:kuryr"}


async def test_tags_in_the_request(server: Scripted, client: Neutron) -> None:
    """Tags go with the request where Neutron takes them, and always stand in the description."""
    server.answer = neutron(post=(201, {"port": PORT}), extensions=("tag-ports-during-bulk-creation",))
    await client.create_port(REQUEST)
    body = server.asked[-1][3]["port"]
    assert (body["tags"], body["description"]) == (["podvif"], "podvif: podvif")


async def test_one_request(server: Scripted, client: Neutron) -> None:
    """Once its facts are known a port costs Neutron one request."""
    server.answer = neutron(post=(201, {"port": PORT}))
    await client.create_port(REQUEST)
    before = len(server.asked)
    await client.create_port(msgspec.structs.replace(REQUEST, device_id="uid-2"))
    assert [method for method, *_ in server.asked[before:]] == ["POST"]


async def test_tags_are_not_allowed(server: Scripted, client: Neutron) -> None:
    """An account that may create ports and not tag them creates them without, from then on at once."""
    words = "rule:create_port and rule:create_port:tags is disallowed by policy"
    refused = (403, {"NeutronError": {"type": "PolicyNotAuthorized", "message": words, "detail": ""}})
    plain = neutron(post=(201, {"port": PORT}), extensions=("tag-ports-during-bulk-creation",))

    def answer(method: str, path: str, query: dict[str, str]) -> Answer:
        if method == "POST" and "tags" in server.asked[-1][3]["port"]:
            return refused
        return plain(method, path, query)

    server.answer = answer
    await client.create_port(REQUEST)
    assert [method for method, *_ in server.asked].count("POST") == 2
    await client.create_port(PortRequest("net", "node-1", "uid-2", "compute:kuryr", "p", tags=("podvif",)))
    assert [method for method, *_ in server.asked].count("POST") == 3


async def test_binding_cannot_be_read(server: Scripted, client: Neutron) -> None:
    """A port whose binding the account may not read is taken back, and the role is named."""
    blind = {key: value for key, value in PORT.items() if not key.startswith("binding:")}
    server.answer = neutron(post=(201, {"port": blind}))
    with pytest.raises(Refused, match="may not read binding:vif_type") as failed:
        await client.create_port(REQUEST)
    assert "`service`" in failed.value.remedy
    assert server.asked[-1][:2] == ("DELETE", f"/ports/{PORT['id']}")


async def test_the_request_is_sent_once(server: Scripted, client: Neutron) -> None:
    """A request whose connection breaks is not sent again behind our back."""
    server.answer = neutron(post=(0, None))
    with pytest.raises(Retry, match="unreachable since"):
        await client.create_port(REQUEST)
    assert [method for method, *_ in server.asked].count("POST") == 1


async def test_server_error(server: Scripted, client: Neutron) -> None:
    """An error of the server is to be repeated, with its own words."""
    server.answer = neutron(post=(500, "Traceback: out of cheese"))
    with pytest.raises(Retry, match="answered 500: Traceback: out of cheese"):
        await client.create_port(REQUEST)


async def test_not_neutron(server: Scripted, client: Neutron) -> None:
    """An endpoint that answers something else is refused as such."""
    server.answer = lambda *_: (200, "<html>welcome</html>")
    with pytest.raises(Refused, match="what answers is not Neutron: '<html>welcome"):
        await client.ports_of("uid-1")


async def test_no_binding_extension(server: Scripted, client: Neutron) -> None:
    """A Neutron that cannot bind ports is told apart at the start."""
    server.answer = neutron(post=(404, {}))
    why = await client.why_not_allowed()
    assert why is not None
    assert "no port binding" in why


async def test_no_network(server: Scripted, client: Neutron) -> None:
    """An account that sees no network is told so."""

    def answer(method: str, path: str, query: dict[str, str]) -> Answer:
        return 200, {"extensions": [{"alias": "binding"}], "networks": []}

    server.answer = answer
    why = await client.why_not_allowed()
    assert why is not None
    assert "see no network" in why


async def test_identity_is_down(tmp_path: Path) -> None:
    """An identity service that cannot be reached is to be waited for, and named by its address."""
    account = "username = u\npassword = p\nproject_name = s\nuser_domain_name = d\nproject_domain_name = d\n"
    file = tmp_path / "kuryr.conf"
    file.write_text(f"[neutron]\nauth_type = password\nauth_url = http://127.0.0.1:9/v3\n{account}")
    client = Neutron(access.load([str(file)]))
    with pytest.raises(Retry) as failed:
        await client.ports_of("uid-1")
    assert failed.value.message.endswith("connection to http://127.0.0.1:9/v3/auth/tokens: Connection refused")
    await client.close()
