"""Where the private API server's programs are looked for."""

from pathlib import Path

import pytest

from podvif.lab.kube import PROGRAMS, folder_of_programs
from podvif.lab.process import LabError


def test_given_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is given is taken when the programs are in it, else the error names it and the variable."""
    monkeypatch.setenv(PROGRAMS, str(tmp_path))
    with pytest.raises(LabError, match=f"{tmp_path}.*{PROGRAMS}"):
        folder_of_programs()
    (tmp_path / "kube-apiserver").touch()
    assert folder_of_programs() == tmp_path


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the cache is looked into, by the content of the source, and the error says how to build them."""
    monkeypatch.delenv(PROGRAMS, raising=False)
    monkeypatch.setenv("PODVIF_CACHE", str(tmp_path))
    with pytest.raises(LabError, match=rf"{tmp_path}/kubernetes-[0-9a-f]{{16}}: run scripts/build-kube"):
        folder_of_programs()
