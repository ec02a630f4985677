"""What Prometheus sees of a controller."""

from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from podvif.controller.metrics import FAMILIES, Metrics, Readiness
from tests.fakes.controller import Controller, Stage

DOCUMENTATION = Path(__file__).parents[3] / "docs/observability.md"


def metrics(controller: Controller) -> Metrics:
    return Metrics(controller.cluster, controller.elector, controller.neutron, controller.leader, controller.tally)


def values(found: Metrics) -> dict[tuple[str, ...], float]:
    """Value by name and labels."""
    families = text_string_to_metric_families(generate_latest(found.registry).decode())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


async def test_values(stage: Stage) -> None:
    """Pods that are bound and that wait, actions, and who leads are there to see."""
    controller = stage.controller(elected=True)
    await stage.pod()
    await stage.until(stage.bound)
    stage.cloud.quota = 1
    await stage.pod("other")
    await stage.until(lambda: stage.reason("other") == "PortNotMade" and controller.leader.waiting == 1)
    found = values(metrics(controller))

    assert found["podvif_controller_leading",] == 1
    assert found["podvif_controller_podvifs", "bound"] == 1
    assert found["podvif_controller_podvifs", "waiting"] == 1
    assert found["podvif_controller_waiting",] == 1
    assert found["podvif_controller_queued",] == 0
    assert found["podvif_controller_actions_total", "CreatePort", "ok"] == 1
    assert found["podvif_controller_actions_total", "CreatePort", "retry"] >= 1
    assert found["podvif_controller_look_seconds_count", "ok"] >= 1
    assert found["podvif_controller_in_sync", "pods"] == 1
    assert found["podvif_controller_neutron_reachable",] == 1


async def test_stand_by(stage: Stage) -> None:
    """A replica that does not lead is ready all the same, and has nothing under way."""
    controller = Controller(stage)
    readiness = Readiness(controller.cluster)
    assert await readiness.why_not() == "pods are not listed yet"
    controller.elected = True
    controller.start(elected=True)
    await stage.until(lambda: controller.elector.leading)
    assert await readiness.why_not() is None
    await controller.kill()
    assert values(metrics(controller))["podvif_controller_queued",] == 0


async def test_all_are_described(stage: Stage) -> None:
    """What is exposed is what the table of families says, and what the documentation has."""
    controller = stage.controller()
    await stage.pod()
    await stage.until(stage.bound)
    exposed = {
        (family.name, family.type, frozenset(label for sample in family.samples for label in sample.labels))
        for family in text_string_to_metric_families(generate_latest(metrics(controller).registry).decode())
        if not family.name.startswith("podvif_process_")
    }
    described = {(f.name.removesuffix("_total"), f.kind, frozenset(f.labels)) for f in FAMILIES}
    assert exposed == described
    text = DOCUMENTATION.read_text()
    assert [family.name for family in FAMILIES if f"`{family.name}`" not in text] == []
