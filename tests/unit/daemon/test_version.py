"""Which podvif this is."""

from podvif.daemon.version import version


def test_version() -> None:
    """A version is numbers with points, or nothing where podvif is not installed."""
    assert all(part.isdigit() for part in version().split(".")[:2] if part)
