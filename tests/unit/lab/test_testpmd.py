"""Reading testpmd's screen and the pod's shell file."""

from pathlib import Path

import pytest

from podvif.core import podfiles
from podvif.lab.process import LabError
from podvif.lab.testpmd import Screen, Statistics, read_env
from tests.fakes.values import entry

SCREEN = """
Port statistics ====================================
  ######################## NIC statistics for port 0  ########################
  RX-packets: 5          RX-missed: 0          RX-bytes:  320
  RX-errors: 0
  RX-nombuf:  0
  TX-packets: 1000       TX-errors: 0          TX-bytes:  64000

  Throughput (since last show)
  Rx-pps:            3          Rx-bps:         1536
  Tx-pps:          777          Tx-bps:       397824
  ############################################################################
  ######################## NIC statistics for port 1  ########################
  RX-packets: 9          RX-missed: 0          RX-bytes:  576
  TX-packets: 8          TX-errors: 0          TX-bytes:  512
  Rx-pps:            7          Rx-bps:         1536
  Tx-pps:            6          Tx-bps:       397824
"""
SUMMARY = """
  ---------------------- Forward statistics for port 0  ----------------------
  RX-packets: 99             RX-dropped: 0             RX-total: 99
  TX-packets: 99             TX-dropped: 0             TX-total: 99
"""


def test_screen() -> None:
    """Each port's figures are the last that testpmd printed of it; the summary at the end is none."""
    screen = Screen()
    complete = [line.split()[0] for line in (SCREEN + SUMMARY).splitlines() if screen.feed(line)]

    assert complete == ["Tx-pps:", "Tx-pps:"]
    assert screen.ports == {0: Statistics(5, 1000, 3, 777), 1: Statistics(9, 8, 7, 6)}
    assert screen.rounds == 1


def test_read_env(tmp_path: Path) -> None:
    """A pod's shell file is read by a shell, and nothing of our own environment is in the answer."""
    file = tmp_path / "c0ffee.env"
    file.write_text(podfiles.render([entry()])["c0ffee.env"])

    found = read_env(file)

    assert (found["VHOSTUSER_COUNT"], found["VHOSTUSER_0_IFNAME"]) == ("1", "net1")
    assert all(name.startswith("VHOSTUSER_") for name in found)


def test_read_env_that_is_none(tmp_path: Path) -> None:
    """A file that the shell refuses is an error with the shell's words."""
    (tmp_path / "x.env").write_text("VHOSTUSER_0='\n")

    with pytest.raises(LabError, match="exit code"):
        read_env(tmp_path / "x.env")
