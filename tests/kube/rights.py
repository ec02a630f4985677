"""What a component may do in Kubernetes, and what it has asked for.

Law: the manifests of deploy/rbac are applied as they are shipped; who runs with them has a token that the API server gave to
their service account.  What was asked for, and whether it was allowed, the API server itself says, in its audit log.
"""

import asyncio
import json
from pathlib import Path

import msgspec

from podvif.kube.resources import Document, Key, Resource
from podvif.lab.kube import KubeApi
from tests.kube.worlds import MANAGER, RealWorld

FOLDER = Path(__file__).parents[2] / "deploy" / "rbac"
NAMESPACE = "kube-system"
"""Of the service accounts."""

POLICY: Document = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}

Right = tuple[str, str]
"""A resource (`podvifs.podvif.io/status`) and a verb."""

_KINDS = {
    "ServiceAccount": Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    **{
        kind: Resource("rbac.authorization.k8s.io", "v1", f"{kind.lower()}s", kind, not kind.startswith("Cluster"))
        for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    },
}


def audit_flags(folder: Path) -> list[str]:
    """Flags of kube-apiserver that have it write down what service accounts ask for."""
    policy = folder / "audit-policy.json"
    policy.write_text(json.dumps(POLICY))  # JSON is YAML
    return [f"--audit-policy-file={policy}", f"--audit-log-path={_log(folder)}"]


class Rights:
    """The rights of one component.

    Args:
        world: the API server, which was started with `audit_flags`.
        component: `node` or `controller`: a file of deploy/rbac.

    Attributes:
        granted: all that its roles allow.
    """

    def __init__(self, world: RealWorld, component: str) -> None:
        self._world = world
        self._account = f"podvif-{component}"
        self._documents = [
            msgspec.yaml.decode(text, type=Document)
            for text in (FOLDER / f"{component}.yaml").read_text().split("\n---\n")
        ]
        rules = [rule for document in self._documents for rule in document.get("rules", [])]
        self.granted: set[Right] = {
            (_resource(group, *resource.split("/")), verb)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    async def kubeconfig(self, path: Path, url: str = "") -> Path:
        """Apply the manifests, and a kubeconfig with a token of the service account."""
        for document in self._documents:
            resource, metadata = _KINDS[document["kind"]], document["metadata"]
            key = Key(metadata.get("namespace", ""), metadata["name"])
            assert isinstance(await self._world.kube.apply(resource, key, document, MANAGER), dict)
        api: KubeApi = self._world.api
        return api.write_kubeconfig(path, url=url, token=await asyncio.to_thread(self._token, api))

    def _token(self, api: KubeApi) -> str:
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{self._account}/token"
        answer = api.ask("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})
        return str(answer["status"]["token"])

    def asked(self) -> tuple[set[Right], list[str]]:
        """What it has asked for until now, and what of it was not allowed, each as a short text."""
        user = f"system:serviceaccount:{NAMESPACE}:{self._account}"
        asked, denied = set(), []
        for line in _log(self._world.api.folder).read_text().splitlines():
            event = json.loads(line)
            if event["user"]["username"] != user:
                continue
            about = event.get("objectRef") or {}
            name = _resource(about.get("apiGroup", ""), about.get("resource", ""), about.get("subresource", ""))
            asked.add((name or event["requestURI"], event["verb"]))
            if event["annotations"]["authorization.k8s.io/decision"] != "allow":
                denied.append(f"{event['verb']} {event['requestURI']}")
        return asked, denied


def _resource(group: str, plural: str, part: str = "") -> str:
    return "".join([plural, f".{group}" if group else "", f"/{part}" if part else ""])


def _log(folder: Path) -> Path:
    return folder / "audit.log"
