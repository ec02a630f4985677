"""How much is measured.

Law: here are numbers and nothing else; the full run ends within 20 minutes on two CPUs, the quick one in about five.
"""

from dataclasses import dataclass

MAXSLEEPS = (0, 500)
"""Microseconds; Open vSwitch's own default, and what a node that saves power sets.  Any value but 0 costs the same."""

MODES = ("server", "client")
"""Of the application: it listens, or Open vSwitch does."""

WARM_UP = 3
"""Rounds that are run and not counted."""

AT_ONCE = 16
"""Calls of the plugin that run at a time in a burst."""

ATTACHMENTS = 100
"""Calls in a burst, and attachments that stand while the daemon idles."""

CHUNK = 50
"""Ports that are made or removed in one transaction where they only have to stand."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        rounds: of serial ADD and DEL, for each mode and pmd-maxsleep.
        bursts: rounds of ADDs and DELs at concurrency, for each pmd-maxsleep.
        standing: numbers of ports that stand while it is seen how ADD grows; ascending.
        growth_rounds: rounds of ADD and DEL at each of these numbers.
        idle_seconds: how long the daemon is watched doing nothing.
        traffic_builds: how often, for each mode, the pairs of ports are made whose packets are counted.
        traffic_rounds: turns of each pair then.
        traffic_seconds: of a turn.
        cluster_rounds: of ADDs that wait for their PodVif, for each pmd-maxsleep.
        restarts: of vswitchd, with client-mode ports.
        kills: of a server-mode application, each followed by a start.
        storm: pods that are made at once for the controller.
        storms: how often, each in turn with as many ports asked of Neutron itself.
        pods: that are made at once in a cluster, with each network.
        pod_turns: over all networks, every other one the other way round.
    """

    rounds: int
    bursts: int
    standing: tuple[int, ...]
    growth_rounds: int
    idle_seconds: float
    traffic_builds: int
    traffic_rounds: int
    traffic_seconds: float
    cluster_rounds: int
    restarts: int
    kills: int
    storm: int
    storms: int
    pods: int
    pod_turns: int


FULL = Plan(
    rounds=60,
    bursts=4,
    standing=(0, 100, 500),
    growth_rounds=25,
    idle_seconds=60,
    traffic_builds=3,
    traffic_rounds=12,
    traffic_seconds=0.25,
    cluster_rounds=40,
    restarts=50,
    kills=100,
    storm=60,
    storms=3,
    pods=30,
    pod_turns=2,
)
QUICK = Plan(
    rounds=8,
    bursts=1,
    standing=(0, 100),
    growth_rounds=5,
    idle_seconds=5,
    traffic_builds=1,
    traffic_rounds=6,
    traffic_seconds=0.25,
    cluster_rounds=8,
    restarts=3,
    kills=3,
    storm=20,
    storms=1,
    pods=10,
    pod_turns=1,
)
