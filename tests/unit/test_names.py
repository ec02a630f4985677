"""Every name and path that podvif derives."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podvif import names
from podvif.core.cni import _CONTAINER_ID, why_not_ifname
from podvif.model import Attachment, Goal, SocketDir

ONE = Attachment("0123456789abcdef" * 4, "eth0")

container_ids = st.from_regex(_CONTAINER_ID, fullmatch=True).filter(lambda text: len(text) <= names.CONTAINER_ID_MAX)
ifnames = st.text(min_size=1, max_size=15).filter(lambda text: _encodable(text) and why_not_ifname(text) is None)
attachments = st.builds(Attachment, container_ids, ifnames)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def test_stable_forever() -> None:
    """The names of an attachment are what they were in the first release, or a new daemon would not find its ports."""
    assert names.port_id(ONE) == "457de6ff-322a-58a2-81fd-e722088fc930"
    assert names.mac(ONE) == "e6:4e:ca:1e:e5:0e"
    assert names.vif_name(names.port_id(ONE)) == "vhu457de6ff-32"
    assert names.host_device(names.port_id(ONE)) == "tap457de6ff-32"
    assert names.host_mac(ONE) == "fe:29:ec:cb:f4:56"


def test_specified_vif_name() -> None:
    """An OVS port is called as the specification prints it: vhu and the beginning of the port id, 14 characters."""
    assert names.vif_name("9c9cc8f5-8812-4a53-a2b1-3c6e61c9cbd0") == "vhu9c9cc8f5-88"


@given(attachments)
def test_port_id(attachment: Attachment) -> None:
    """A port id is a UUID of version 5, and the OVS port's name fits a kernel's interface name."""
    port = names.port_id(attachment)

    assert str(uuid.UUID(port)) == port
    assert uuid.UUID(port).version == 5
    assert len(names.vif_name(port)) == names.VIF_NAME_LENGTH
    assert why_not_ifname(names.vif_name(port)) is None


@given(attachments)
def test_mac(attachment: Attachment) -> None:
    """A derived MAC is six octets, unicast and locally administered."""
    octets = [int(octet, 16) for octet in names.mac(attachment).split(":")]

    assert names.mac(attachment) == ":".join(f"{octet:02x}" for octet in octets)
    assert len(octets) == 6
    assert octets[0] & 0b11 == 0b10


@given(attachments, attachments)
def test_two_attachments_share_nothing(one: Attachment, other: Attachment) -> None:
    """Two attachments never have one journal file, nor one port id or MAC; the same has the same."""
    same = one == other

    assert (names.journal_file(one, Goal.ATTACHED) == names.journal_file(other, Goal.ATTACHED)) is same
    assert (names.port_id(one) == names.port_id(other)) is same
    assert (names.mac(one) == names.mac(other)) is same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Attachment("a-b", "c"), Attachment("a", "b-c")),
        (Attachment("a.json", "b"), Attachment("a", "json-b")),
        (Attachment("a", "b.json"), Attachment("a", "b")),
        (Attachment("a", "b.attached"), Attachment("a", "b")),
    ],
)
def test_journal_files_of_look_alikes(one: Attachment, other: Attachment) -> None:
    """Attachments whose parts run together differently still have two journal files."""
    files = {names.journal_file(attachment, goal) for attachment in (one, other) for goal in Goal}
    assert len(files) == 2 * len(Goal)


@given(attachments)
def test_file_names_fit(attachment: Attachment) -> None:
    """Every file name of an attachment, with what may be added to it, fits the 255 bytes of a file name."""
    listed = [
        *(names.journal_file(attachment, goal) + ".unreadable" for goal in Goal),
        names.attachment_file(attachment),
        names.sandbox_json(attachment.container_id),
        names.sandbox_env(attachment.container_id),
    ]

    assert all(len(f".{name}.new".encode()) <= 255 and "/" not in name for name in listed)


def test_files_of_the_pod() -> None:
    """The pod's files are called as the specification and the reference say."""
    assert names.attachment_file(ONE) == f"{ONE.container_id}-eth0"
    assert names.sandbox_json("c1") == "c1.json"
    assert names.sandbox_env("c1") == "c1.env"


@pytest.mark.parametrize("directory", ["/run/vhostuser", "/run/vhostuser/"])
def test_socket_path(directory: str) -> None:
    """A socket's path has one slash before its name, however the directory was written."""
    assert names.socket_path(SocketDir(directory), "vhu1") == "/run/vhostuser/vhu1"


def test_marks() -> None:
    """The owner marks name container, interface and pod; without a pod they do not mention one."""
    owner = {"podvif-container-id": ONE.container_id, "podvif-ifname": "eth0"}

    assert names.marks(ONE, "ns/pod") == owner | {"podvif-pod": "ns/pod"}
    assert names.marks(ONE, "") == owner


@pytest.mark.parametrize("node", ["n1", "n" * 63])
def test_node_label(node: str) -> None:
    """A node's name that a label can hold is its label."""
    assert names.node_label(node) == node


def test_label_of_a_long_node_name() -> None:
    """A longer one is cut to 63 characters, and two that begin alike have different labels."""
    one, other = (names.node_label(f"{'worker.' * 20}{end}") for end in "ab")

    assert re.fullmatch("[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", one)
    assert len(one) == 63
    assert one != other


@given(attachments)
def test_kernel_port(attachment: Attachment) -> None:
    """The devices of a kernel port have names that the kernel takes, each another, and the host end a MAC of its own."""
    port = names.port_id(attachment)
    devices = [names.host_device(port), names.linux_bridge(port), *names.linux_bridge_ends(port)]

    assert len({*devices, names.vif_name(port)}) == 5
    assert [why_not_ifname(name) for name in devices] == [None] * 4
    assert re.fullmatch("fe(:[0-9a-f]{2}){5}", names.host_mac(attachment))
    assert names.host_mac(attachment) != names.mac(attachment)


def test_own_directory() -> None:
    """A pod's own directory is named after its UID, the UUID of an ordinary one and the hash of a static one."""
    uid = "0d5bd2f5-6d0a-4a57-9d7e-2b1f6f3c7a41"

    assert names.own_directory("/run/podvif/", uid) == f"/run/podvif/pods/{uid}"
    assert names.own_directory("/run/podvif", "a" * 32) == "/run/podvif/pods/" + "a" * 32


@pytest.mark.parametrize("uid", ["", ".", "..", "a/b", "../x", "a.b", "-a", "a\n", "a" * 37, "ü"])
def test_no_own_directory(uid: str) -> None:
    """What is no UID names no directory."""
    with pytest.raises(ValueError, match="no UID"):
        names.own_directory("/run/podvif", uid)


def test_volume_file() -> None:
    """Whatever kubelet calls a volume, its record has a plain name of its own."""
    found = {names.volume_file(each) for each in ("csi-1", "../x", "a/b", "x" * 128)}

    assert len(found) == 4
    assert all("/" not in name and len(name) < 100 for name in found)
