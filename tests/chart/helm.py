"""Helm, as a person at a shell has it."""

import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec

NAMESPACE = "kube-system"


class Helm:
    """Runs helm on the chart."""

    def __init__(self, program: str, chart: Path, folder: Path) -> None:
        self._program = program
        self._chart = str(chart)
        self._folder = folder

    def run(self, verb: str, values: dict[str, Any] | None = None, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb on the chart with these values."""
        file = self._folder / "values.json"
        file.write_bytes(msgspec.json.encode(values or {}))
        release = [] if verb == "lint" else ["podvif"]
        return self.plain(verb, *release, self._chart, "--values", str(file), "--namespace", NAMESPACE, *arguments)

    def plain(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm with nothing added; it reads no configuration of the machine's."""
        homes = {name: str(self._folder) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
        return subprocess.run(
            [self._program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder), **homes},
        )

    def rendered(self, values: dict[str, Any] | None = None, *arguments: str) -> list[dict[str, Any]]:
        """The objects of the chart with these values."""
        done = self.run("template", values, *arguments)
        assert done.returncode == 0, done.stderr
        documents = (msgspec.yaml.decode(text) for text in f"\n{done.stdout}".split("\n---\n"))
        return [document for document in documents if document]
