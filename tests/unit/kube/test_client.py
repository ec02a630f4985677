"""The adapter without a server: configuration, paths, lines, statuses."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from podvif.errors import Bug, Refused, Retry
from podvif.kube import client
from podvif.kube.client import Change, ExpiredError, Kube, Outcome, UnknownError
from podvif.kube.resources import NODES, PODS, PODVIFS, Key

KUBECONFIG = """
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


@pytest.mark.parametrize(
    "text", ["", "a: [", "apiVersion: v1\nkind: Config\n", "7", "clusters: []\ncontexts: []\nusers: []"]
)
def test_broken_kubeconfig(tmp_path: Path, text: str) -> None:
    """A kubeconfig that cannot be used is refused with its path."""
    config = tmp_path / "config"
    config.write_text(text)
    with pytest.raises(Refused, match=str(config)) as raised:
        Kube(str(config))
    assert "kubeconfig" in raised.value.remedy


def test_no_kubeconfig(tmp_path: Path) -> None:
    """A kubeconfig that is not there is refused with its path."""
    with pytest.raises(Refused, match="nowhere"):
        Kube(str(tmp_path / "nowhere"))


def test_paths() -> None:
    """Paths are the API's: core or group, namespace or none, object, subresource."""
    assert client._path(PODS, "") == "api/v1/pods"
    assert client._path(PODS, "a", Key("a", "b")) == "api/v1/namespaces/a/pods/b"
    assert client._path(NODES, "", Key("", "n1")) == "api/v1/nodes/n1"
    status = client._path(PODVIFS, "a", Key("a", "b"), status=True)
    assert status == "apis/podvif.io/v1alpha1/namespaces/a/podvifs/b/status"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_paths_that_lead_astray(name: str) -> None:
    """A name that would make another path of it is refused."""
    with pytest.raises(Refused, match="no object can be called that"):
        client._path(PODS, "a", Key("a", name))


def test_names_are_quoted() -> None:
    """A slash or a question mark in a name stays a part of the name."""
    assert client._path(PODS, "a", Key("a", "../b?c#d")) == "api/v1/namespaces/a/pods/..%2Fb%3Fc%23d"


async def test_lines() -> None:
    """Lines are found wherever chunks begin and end, and half a line in the end is none."""

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"a", b"b\nc\n", b"", b"d\xe2\x80", b"\xa8e\nrest"):
            yield chunk

    assert [line async for line in client._lines(chunks())] == [b"ab", b"c", b"d\xe2\x80\xa8e"]


def test_event() -> None:
    """A line of a watch is a change of an object, or the error that ends it."""
    event = client._event(b'{"type": "ADDED", "object": {"metadata": {"name": "a"}}}')
    assert (event.change, event.document) == (Change.ADDED, {"metadata": {"name": "a"}})
    with pytest.raises(ExpiredError, match="too old"):
        client._event(b'{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}')
    with pytest.raises(Retry, match="etcd is gone"):
        client._event(b'{"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is gone"}}')


@pytest.mark.parametrize(
    ("code", "body", "outcome"),
    [
        (404, b'{"reason": "NotFound", "details": {"name": "p1"}}', Outcome.MISSING),
        (404, b'{"reason": "NotFound", "details": {}}', None),
        (404, b"404 page not found\n", None),
        (409, b'{"reason": "AlreadyExists"}', Outcome.EXISTS),
        (409, b'{"reason": "Conflict"}', Outcome.CONFLICT),
        (403, b'{"reason": "Forbidden", "details": {"name": "p1"}}', None),
    ],
)
def test_outcome(code: int, body: bytes, outcome: Outcome | None) -> None:
    """What is no error but an outcome is told by status and reason; a kind that is not served is an error."""
    assert client._outcome(httpx2.Response(code, content=body)) is outcome


@pytest.mark.parametrize(
    ("code", "family"),
    [
        (400, Refused),
        (401, UnknownError),
        (403, Refused),
        (404, Retry),
        (410, ExpiredError),
        (422, Refused),
        (429, Retry),
        (500, Retry),
        (503, Retry),
        (504, Retry),
    ],
)
def test_families(code: int, family: type[Exception]) -> None:
    """Each status is of one family, and the server's own words are in the message."""
    error = client._of_status("get pods a/b", "https://there", httpx2.Response(code, content=b'{"message": "words"}'))
    assert type(error) is family
    assert str(error) == f"cannot get pods a/b at https://there: words ({code})"
    assert error.remedy


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (httpx2.ConnectError("refused"), "refused"),
        (httpx2.ReadTimeout(""), "ReadTimeout"),
        (TimeoutError(), "does not answer in time"),
        (ConnectionResetError("reset"), "reset"),
    ],
)
def test_connection(raised: Exception, words: str) -> None:
    """Whatever happens to the connection is one to retry, with the server's address and the cause."""
    with pytest.raises(Retry, match=words) as caught, client._translated("get x", "https://there"):
        raise raised
    assert "https://there" in str(caught.value)
    assert caught.value.__cause__ is raised


def test_ours_pass() -> None:
    """An error that is ours already passes the door as it is."""
    with pytest.raises(Bug, match=r"^mine$"), client._translated("get x", "https://there"):
        raise Bug("mine")


@pytest.mark.parametrize("verb", ["apply", "merge"])
async def test_status_by_uid(tmp_path: Path, verb: str) -> None:
    """A status that is to be guarded by the object's uid alone is a bug: the server would not look at it."""
    config = tmp_path / "config"
    config.write_text(KUBECONFIG)
    kube = Kube(str(config))
    with pytest.raises(Bug, match=r"does not look at metadata\.uid"):
        await getattr(kube, verb)(PODVIFS, Key("a", "b"), {"metadata": {"uid": "u"}}, "m", status=True)
    await kube.close()
