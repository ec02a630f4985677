"""The fake cloud over HTTP, for a controller that is a process of its own.

Law: it says what `FakeCloud` says, in Neutron's form; what podvif makes of it is for the tests of the client, which have a real
Neutron too.
"""

import json
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from podvif.model import NeutronPort, PortRequest
from tests.fakes.neutron import FakeCloud, _SaidNo

Document = dict[str, Any]


class NeutronServer(ThreadingHTTPServer):
    """A FakeCloud's API on a port of 127.0.0.1; it answers inside the `with` block.

    Attributes:
        cloud: what it shows.
        creations: requests that asked for a port.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, cloud: FakeCloud) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cloud = cloud
        self.creations = 0
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def options(self) -> Mapping[str, str]:
        """[neutron] for who asks it."""
        return {"auth_type": "none", "endpoint_override": f"http://127.0.0.1:{self.server_address[1]}"}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A controller that is killed leaves its requests: that is what the tests are about."""

    def answer(self, method: str, path: list[str], query: Mapping[str, str], body: Document) -> tuple[int, Document]:
        """Status and document."""
        cloud = self.cloud
        match method, path:
            case "GET", ["extensions"]:
                return 200, {"extensions": [{"alias": "binding"}, {"alias": "tag-ports-during-bulk-creation"}]}
            case "GET", ["ports"]:
                return 200, _page(cloud.all_ports.values(), query)
            case "GET", ["subnets"]:
                found = [key for key, name in cloud.names.items() if query.get("name", name) == name]
                return 200, {"subnets": [{"id": key} for key in found if query.get("id", key) == key]}
            case "GET", ["subnets", key] if key in cloud.subnets:
                subnet = cloud.subnets[key]
                about = {"network_id": subnet.network_id, "cidr": subnet.cidr, "gateway_ip": subnet.gateway}
                return 200, {"subnet": {"id": key, **about}}
            case "GET", ["networks", key] if key in cloud.networks:
                return 200, {"network": {"id": key, "mtu": cloud.networks[key].mtu}}
            case "POST", ["ports"]:
                return self._create(body["port"])
            case "PUT", ["ports", key] if key in cloud.all_ports:
                cloud.all_ports[key] = cloud.bound(cloud.all_ports[key], body["port"]["binding:host_id"])
                return 200, {"port": _port(cloud.all_ports[key])}
            case "DELETE", ["ports", key] if key in cloud.all_ports:
                del cloud.all_ports[key]
                return 204, {}
        return 404, {"NeutronError": {"type": "NotFound", "message": f"{'/'.join(path)} could not be found"}}

    def _create(self, body: Document) -> tuple[int, Document]:
        fixed = [(ip.get("subnet_id"), ip.get("ip_address")) for ip in body.get("fixed_ips", [])]
        if any(subnet not in {None, *self.cloud.subnets} for subnet, _ in fixed):  # how the credentials are tried
            return 404, {"NeutronError": {"type": "SubnetNotFound", "message": "Subnet could not be found."}}
        request = PortRequest(
            network_id=body["network_id"],
            host_id=body["binding:host_id"],
            device_id=body["device_id"],
            device_owner=body["device_owner"],
            name=body["name"],
            tags=tuple(body["tags"]),
        )
        self.creations += 1
        try:
            return 201, {"port": _port(self.cloud.create(request, fixed, "service"))}
        except _SaidNo as no:
            return no.answer.status, {"NeutronError": {"type": no.answer.type, "message": no.answer.words}}


class _Handler(BaseHTTPRequestHandler):
    server: NeutronServer
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = parts.path.removeprefix("/v2.0").strip("/").split("/")
        with self.server.lock:
            status, document = self.server.answer(self.command, path, query, json.loads(body) if body else {})
        text = json.dumps(document).encode() if document else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815  the names are http.server's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  likewise
        """Say nothing."""


def _page(ports: Iterable[NeutronPort], query: Mapping[str, str]) -> Document:
    device, owner, marker = query.get("device_id"), query.get("device_owner"), query.get("marker", "")
    found = [
        port
        for port in ports
        if device in {None, port.device_id} and owner in {None, port.device_owner} and port.id > marker
    ]
    found.sort(key=lambda port: port.id)
    size = int(query.get("limit", "0")) or len(found)
    links = [{"rel": "next", "href": ""}] if len(found) > size else []
    return {"ports": [_port(port) for port in found[:size]], "ports_links": links}


def _port(port: NeutronPort) -> Document:
    return {
        "id": port.id,
        "name": port.name,
        "network_id": port.network_id,
        "device_id": port.device_id,
        "device_owner": port.device_owner,
        "mac_address": port.mac,
        "fixed_ips": [{"subnet_id": ip.subnet_id, "ip_address": ip.address} for ip in port.fixed_ips],
        "status": port.status,
        "binding:host_id": port.host_id,
        "binding:vif_type": port.vif_type,
        "binding:vif_details": port.vif_details,
        "tags": sorted(port.tags),
        "revision_number": port.revision,
        "created_at": port.created,
    }
