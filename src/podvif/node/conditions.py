"""What the node tells the cluster: conditions of its PodVifs, and the pods' network-status.

Law: an event says of which pod something may have changed, and what is told is observed when it is told.  One task writes;
what cannot be written waits until the API server is back, as no more than the pod's name; no verb waits for it or fails by
it.  Nothing here is remembered over a restart: what is true then is told then.
"""

import asyncio
import datetime as dt
import logging
import random
from collections.abc import Callable, Iterable

from podvif.core import conditions, decide, networks
from podvif.core.conditions import Standing
from podvif.core.networks import NETWORK_STATUS
from podvif.errors import PodvifError, Refused, Retry
from podvif.kube.convert import render
from podvif.kube.reflector import Backoff
from podvif.kube.resources import PODS, PODVIFS, Key
from podvif.model import Attachment, Entry, Goal, PortKind
from podvif.node.cluster import Api, Cache
from podvif.node.converge import World
from podvif.node.journal import Journal
from podvif.node.verbs import want_attached
from podvif.podvifs import PodVif

_LOG = logging.getLogger(__name__)

MANAGER = "podvif-node"
"""Our field manager: the API server keeps by it which fields of the status are the node's."""

GATHER = 0.1
"""Seconds in which several events of a pod become one write."""


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Reporter:
    """Tells the API server; `run` is the task."""

    def __init__(
        self,
        api: Api,
        podvifs: Cache,
        journal: Journal,
        driver: World,
        *,
        gather: float = GATHER,
        backoff: Backoff = Backoff(),  # noqa: B008  frozen
        now: Callable[[], str] = _now,
    ) -> None:
        """Take the parts; what the journal has is told as soon as `run` runs."""
        self._api = api
        self._podvifs = podvifs
        self._journal = journal
        self._driver = driver
        self._gather = gather
        self._backoff = backoff
        self._now = now
        self._pods: dict[Attachment, Key] = {}
        self._published: dict[Key, tuple[str, str]] = {}
        self._due: set[Key] = set()
        self._news = asyncio.Event()
        self._said: dict[Key, str] = {}
        podvifs.on_change(self._changed)
        for entry in journal.all():
            self.touch(entry.attachment)

    def touch(self, attachment: Attachment) -> None:
        """Something about an attachment may have changed."""
        entry = self._journal.get(attachment)
        if entry is not None and entry.vif.neutron:
            key = self._pods[attachment] = Key(entry.pod.namespace, entry.pod.name)
            self._changed([key])
        elif entry is None:
            self.look()

    def look(self) -> None:
        """Some attachments may be gone."""
        self._news.set()

    def _changed(self, keys: Iterable[Key]) -> None:
        self._due.update(keys)
        self._news.set()

    async def run(self) -> None:
        """Tell what has changed, until cancelled."""
        failures = 0
        while True:
            await self._news.wait()
            await self._podvifs.in_sync()
            await asyncio.sleep(self._gather)
            self._news.clear()
            self._forget_gone()
            due, self._due = self._due, set()
            again = {key for key in sorted(due) if not await self._tell(key)}
            failures = failures + 1 if again else 0
            if again:
                self._changed(again)
                await asyncio.sleep(self._backoff.delay(failures, random.random()))  # noqa: S311  jitter, no secret

    def _forget_gone(self) -> None:
        for attachment in [each for each in self._pods if self._journal.get(each) is None]:
            self._due.add(self._pods.pop(attachment))

    async def _tell(self, key: Key) -> bool:
        """Write what is so of one pod; whether that need not be tried again."""
        podvif = self._podvifs.get(key)
        if podvif is None or podvif.deleting:
            self._published.pop(key, None)
            self._said.pop(key, None)
            return True
        try:
            standing = self._standing(podvif)
            await self._write_conditions(key, podvif, standing)
            await self._publish(key, podvif, standing)
        except (Retry, Refused) as error:
            self._say(key, error)
            # What is forbidden or refused is so until somebody changes something; the next event tries it again.
            return isinstance(error, Refused)
        self._said.pop(key, None)
        return True

    def _say(self, key: Key, error: PodvifError) -> None:
        if self._said.get(key) != error.message:  # said once, not at every try
            self._said[key] = error.message
            _LOG.warning("PodVif %s was not told what the node sees: %s", key, error.message)

    def _standing(self, podvif: PodVif) -> dict[str, Standing]:
        found = {}
        for entry in self._entries(podvif):
            want = want_attached(entry)
            found[entry.attachment.ifname] = Standing(entry, decide.link(want, self._driver.observe(want)))
        return found

    def _entries(self, podvif: PodVif) -> list[Entry]:
        return [
            entry
            for entry in self._journal.all()
            if entry.goal is Goal.ATTACHED
            and entry.vif.neutron
            and (entry.pod.namespace, entry.pod.name) == (podvif.namespace, podvif.name)
            and podvif.spec.is_of(entry.pod.uid)
        ]

    async def _write_conditions(self, key: Key, podvif: PodVif, standing: dict[str, Standing]) -> None:
        told = conditions.node_conditions(podvif, standing, self._now())
        if conditions.say_the_same(told, podvif):
            return
        version = {"resourceVersion": podvif.resource_version}
        document = {"metadata": version, "status": {"conditions": [render(each) for each in told]}}
        # An Outcome means that it is not what we know, or not there at all: then an event of the watch is on its way.
        await self._api.apply(PODVIFS, key, document, MANAGER, status=True)

    async def _publish(self, key: Key, podvif: PodVif, standing: dict[str, Standing]) -> None:
        """The pod annotation network-status, where no Multus writes it."""
        leaders = [each.entry for each in standing.values() if not each.entry.leader]
        if not leaders:
            self._published.pop(key, None)
            return
        facts = {each.name: each for each in podvif.status.interfaces if each.name in standing}
        sockets = {
            name: each.entry.vif for name, each in standing.items() if each.entry.vif.kind is PortKind.VHOST_USER
        }
        text = networks.render_network_status(podvif.spec, facts, sockets, leaders[0].network)
        wanted = (podvif.spec.pod_uid, text or "")
        if text is None or self._published.get(key) == wanted:
            return
        annotated = {"metadata": {"uid": podvif.spec.pod_uid, "annotations": {NETWORK_STATUS: text}}}
        # By its status the pod's annotations can be written, and nothing of its spec: the node needs no right to that.
        await self._api.merge(PODS, key, annotated, MANAGER, status=True)
        self._published[key] = wanted
