"""Objects of a real API server, by plain HTTP: what is sent is what helm has rendered, and nothing is filled in."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from podvif.lab.kube import KubeApi

PLURALS = {
    "NetworkAttachmentDefinition": "network-attachment-definitions",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}
CLUSTER_WIDE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CSIDriver",
    "CustomResourceDefinition",
    "Namespace",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
FOREIGN = [
    ("k8s.cni.cncf.io", "v1", "network-attachment-definitions", "NetworkAttachmentDefinition"),
    ("monitoring.coreos.com", "v1", "servicemonitors", "ServiceMonitor"),
    ("monitoring.coreos.com", "v1", "prometheusrules", "PrometheusRule"),
]
"""Kinds that others bring: their schema here is open."""


class Objects:
    """One API server."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._trust = ssl.create_default_context(cafile=str(api.certificate))

    def prepare(self) -> None:
        """Make the kinds of others, and what a controller manager would make."""
        for group, version, plural, kind in FOREIGN:
            schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            self.apply(
                {
                    "apiVersion": "apiextensions.k8s.io/v1",
                    "kind": "CustomResourceDefinition",
                    "metadata": {"name": f"{plural}.{group}"},
                    "spec": {
                        "group": group,
                        "scope": "Namespaced",
                        "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
                        "versions": [
                            {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
                        ],
                    },
                }
            )
        for namespace in ("kube-system", "default"):
            self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            about = {"name": "default", "namespace": namespace}
            self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about})

    def apply(self, document: dict[str, Any], *, dry: bool = False) -> dict[str, Any]:
        """Server-side apply with strict validation: an unknown or doubled field is an error."""
        query = "fieldManager=test&force=true&fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        return self.ask("PATCH", f"{path_of(document)}?{query}", document)

    def get(self, document: dict[str, Any]) -> dict[str, Any] | None:
        """The object of that name, or None."""
        try:
            return self.ask("GET", path_of(document))
        except AssertionError as error:
            if '"code":404' in str(error).replace(" ", ""):
                return None
            raise

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request; what the server refuses fails the test with its words."""
        request = urllib.request.Request(  # noqa: S310  the lab's own server
            f"{self._api.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._api.token}", "Content-Type": "application/apply-patch+yaml"},
        )
        try:
            with urllib.request.urlopen(request, context=self._trust, timeout=30) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            words = error.read().decode()
        raise AssertionError(f"{method} {path}: {words}")


def path_of(document: dict[str, Any]) -> str:
    """Where an object is."""
    version, kind, about = document["apiVersion"], document["kind"], document["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    place = "" if kind in CLUSTER_WIDE else f"/namespaces/{about['namespace']}"
    return f"{root}{place}/{plural}/{about['name']}"
