"""[neutron] in kuryr.conf."""

from pathlib import Path

import pytest

from podvif.errors import Refused
from podvif.neutron import access

NOBODY = "auth_type = none\nendpoint_override = http://127.0.0.1:9696\n"


def conf(folder: Path, text: str) -> list[str]:
    file = folder / "kuryr.conf"
    file.write_text(f"[neutron]\n{text}")
    return [str(file)]


def test_no_authentication(tmp_path: Path) -> None:
    """A Neutron without authentication needs its address alone; the rest has defaults."""
    found = access.load(conf(tmp_path, NOBODY))
    assert found.adapter.get_endpoint() == "http://127.0.0.1:9696"
    assert (found.device_owner, found.concurrency, found.facts_lifetime) == ("compute:kuryr", 2, 300.0)


def test_keystone(tmp_path: Path) -> None:
    """The options of an auth_type are read under their own names, an old name as well."""
    account = "username = u\npassword = p\nproject_name = services\nuser_domain_name = d\nproject_domain_name = d\n"
    options = f"auth_type = password\nauth_url = http://127.0.0.1:5000/v3\nregion_name = R1\n{account}insecure = true\n"
    found = access.load(conf(tmp_path, options))
    assert found.adapter.region_name == "R1"
    assert getattr(found.adapter.session.auth, "auth_url", None) == "http://127.0.0.1:5000/v3"
    assert found.adapter.session.verify is False


def test_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud of clouds.yaml is taken by its name."""
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text(
        "clouds:\n  lab:\n    auth_type: none\n    network_endpoint_override: http://127.0.0.1:9\n    region_name: ''\n"
    )
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
    assert access.load(conf(tmp_path, "cloud = lab")).adapter.get_endpoint() == "http://127.0.0.1:9"
    with pytest.raises(Refused, match="Cloud nowhere was not found"):
        access.load(conf(tmp_path, "cloud = nowhere"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "neither auth_type nor cloud"),
        ("auth_type = telepathy\n", "telepathy"),
        (NOBODY + "passwort = x\n", r"\[neutron\] passwort is not an option"),
        (NOBODY + "concurrency = 0\n", "concurrency"),
        (NOBODY + "facts_lifetime = soon\n", "facts_lifetime"),
        ("auth_type = password\n", "auth_url"),
    ],
)
def test_refused(tmp_path: Path, text: str, words: str) -> None:
    """What cannot work is refused with file, section and the option's name."""
    with pytest.raises(Refused, match=words) as failed:
        access.load(conf(tmp_path, text))
    assert "kuryr.conf: [neutron]" in failed.value.message


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is refused by its name."""
    with pytest.raises(Refused, match=r"nothing\.conf"):
        access.load([str(tmp_path / "nothing.conf")])
