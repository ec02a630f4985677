"""The do-nothing program, compiled in the run.

Law: it is built as the shim is (static, stripped, same compiler), so that the difference between the two is the shim's work.
"""

import os
from pathlib import Path

from podvif.lab.process import output
from podvif.lab.programs import require

SOURCE = Path(__file__).with_name("noop") / "main.go"


def build(folder: Path) -> Path:
    """Compile it into `folder` and return the executable.

    Raises:
        LabError: there is no Go compiler, or it failed.
    """
    go, executable = require("go", "golang-go"), folder / "noop"
    env = os.environ | {"CGO_ENABLED": "0", "GOOS": "linux", "GOFLAGS": "", "GOWORK": "off"}
    # An absolute path of a file: Go then needs no module, whatever folder we are in.
    output(
        [go, "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", str(executable), str(SOURCE)],
        timeout=300,
        env=env,
    )
    return executable
