"""Kinds and keys."""

from podvif.kube.resources import NADS, NODES, PODS, Key, key_of


def test_api_version() -> None:
    """The core group's version stands alone, the others' behind their group."""
    assert (PODS.api_version, NADS.api_version) == ("v1", "k8s.cni.cncf.io/v1")


def test_key_of() -> None:
    """An object's key is its namespace, if it has one, and its name."""
    assert key_of({"metadata": {"namespace": "a", "name": "b"}}) == Key("a", "b")
    assert str(key_of({"metadata": {"name": "n1"}})) == "n1"


def test_messages() -> None:
    """In messages kinds and keys read as kubectl has them."""
    assert (str(NADS), str(NODES)) == ("network-attachment-definitions.k8s.cni.cncf.io", "nodes")
    assert str(Key("a", "b")) == "a/b"
