"""`podvif controller` that is killed by SIGKILL right after each act: one life, one act.

Law: the controller itself has no switch for this; the real one runs here, with the one method that acts wrapped.
"""

import os
import signal
import sys

from podvif.controller import main
from podvif.controller.neutron_vif import NeutronPodVIFDriver, Walk
from podvif.core.pods import Action
from podvif.podvifs import PodVif

_do = NeutronPodVIFDriver.do


async def _do_and_die(self: NeutronPodVIFDriver, walk: Walk, podvif: PodVif | None, action: Action) -> None:
    await _do(self, walk, podvif, action)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    NeutronPodVIFDriver.do = _do_and_die  # type: ignore[method-assign]
    main.run([value for flag, value in zip(sys.argv[1:], sys.argv[2:], strict=False) if flag == "--config-file"])
