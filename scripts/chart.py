"""The Helm chart's files that have their home elsewhere, and its reference.

Law: the CRD, the rights, the admission policies, alerts and dashboards are what deploy/ has, and the options of kuryr.conf what
`podvif.settings` has; the chart's copies differ in namespace, labels and conditions alone.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "podvif"
TEMPLATES = CHART / "templates"
_LABELS = '  labels: {{- include "podvif.labels" . | nindent 4 }}\n'
_NOTE = "{{/* Written by scripts/generate_docs.py (make docs) of %s: change that. */}}\n"


def files(programs: dict[str, tuple[list[Any], str]], note: str) -> dict[Path, str]:
    """Every file of the chart that is written, and the reference page.

    Args:
        programs: kuryr.conf's sections, each with its options and who reads it.
        note: begins a page that is written.
    """
    schema = _schema(programs)
    return {
        CHART / "values.schema.json": json.dumps(schema, indent=1, ensure_ascii=False) + "\n",
        ROOT / "docs" / "reference" / "chart.md": _page(schema, note),
        TEMPLATES / "crd.yaml": _crd(),
        TEMPLATES / "rbac-node.yaml": _rbac("node"),
        TEMPLATES / "rbac-controller.yaml": _rbac("controller"),
        TEMPLATES / "policy.yaml": _policy(),
        **{
            CHART / "files" / source.name: source.read_text()
            for source in [*(DEPLOY / "grafana").glob("*.json"), *(DEPLOY / "prometheus").glob("*.yaml")]
        },
    }


# -- templates ---------------------------------------------------------------------------------------------------------


def _crd() -> str:
    source = DEPLOY / "crds" / "podvifs.podvif.io.yaml"
    # What a description has in braces is not Helm's.
    text = source.read_text().replace("{{", '{{ "{{" }}')
    kept = f"metadata:\n{_LABELS}  annotations: {{helm.sh/resource-policy: keep}}\n"
    return _wrapped(
        source, 'and (eq .Values.profile "neutron") .Values.crds.install', _once(text, "\nmetadata:\n", f"\n{kept}")
    )


def _rbac(program: str) -> str:
    source = DEPLOY / "rbac" / f"{program}.yaml"
    text = source.read_text().replace("namespace: kube-system", "namespace: {{ .Release.Namespace }}")
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    text = "".join(lines).replace("metadata:\n", f"metadata:\n{_LABELS}")
    if program == "controller":
        named = '{{ include "podvif.option" (dict "root" . "section" "controller" "option" "lease_name" "default" "podvif-controller") }}'
        text = _once(text, "resourceNames: [podvif-controller]", f"resourceNames: [{named}]")
        # The rights on the Lease are where the Lease is.
        where = '{{ include "podvif.option" (dict "root" . "section" "controller" "option" "lease_namespace" "default" "") | default .Release.Namespace }}'
        documents = text.split("---\n")
        for number, document in enumerate(documents):
            if "\nkind: Role\n" in document or "\nkind: RoleBinding\n" in document:
                documents[number] = document.replace(
                    "\n  namespace: {{ .Release.Namespace }}", f"\n  namespace: {where}", 1
                )
        text = "---\n".join(documents)
    return _wrapped(source, 'eq .Values.profile "neutron"', text)


def _policy() -> str:
    source = DEPLOY / "policy" / "hostpath.yaml"
    lines = [line for line in source.read_text().splitlines(keepends=True) if not line.startswith("#")]
    text = "".join(lines).replace("metadata:\n", f"metadata:\n{_LABELS}")
    paths = "        ['/var/run/podvif', '/var/lib/podvif', '/var/run/openvswitch', '/var/lib/kubelet/pods',\n        '/var/lib/kubelet/plugins/csi.podvif.io']\n"
    if text.count(paths) != 2:
        raise ValueError(f"{source}: the paths are not where they were")
    text = text.replace(
        paths, "        [{{ range $index, $path := $paths }}{{ if $index }}, {{ end }}'{{ $path }}'{{ end }}]\n"
    )
    text = _once(
        text,
        "\"['kube-system']\"",
        "\"[{{ range $index, $name := $namespaces }}{{ if $index }}, {{ end }}'{{ $name }}'{{ end }}]\"",
    )
    text = _once(text, "'kube-system/podvif-node'", "'{{ .Release.Namespace }}/podvif-node'")
    option = '(include "podvif.option" (dict "root" . "section" "{}" "option" "{}" "default" "{}"))'
    kept = [
        option.format("node", "run_dir", "/var/run/podvif"),
        '(include "podvif.option" (dict "root" . "section" "node" "option" "cni_socket" "default" "/var/run/podvif/cni.sock") | dir)',
        option.format("node", "state_dir", "/var/lib/podvif"),
        option.format("vhostuser", "ovs_vhu_path", "/var/run/openvswitch"),
        '(printf "%s/pods" .Values.csi.kubeletDir)',
        '(printf "%s/plugins/csi.podvif.io" .Values.csi.kubeletDir)',
    ]
    head = (
        "{{- $paths := list " + " ".join(kept) + " | uniq }}\n"
        "{{- if .Values.policy.forbidMountPoint }}{{ $paths = append $paths "
        + option.format("vhostuser", "mount_point", "/var/run/vhostuser")
        + " }}{{ end }}\n"
        "{{- $namespaces := append .Values.policy.exemptNamespaces .Release.Namespace | uniq }}\n"
    )
    return _wrapped(source, ".Values.policy.enabled", head + text)


def _wrapped(source: Path, condition: str, text: str) -> str:
    return f"{_NOTE % source.relative_to(ROOT)}{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n"


def _once(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise ValueError(f"{old!r} stands {text.count(old)} times where once was expected")
    return text.replace(old, new)


# -- values ------------------------------------------------------------------------------------------------------------


def _schema(programs: dict[str, tuple[list[Any], str]]) -> dict[str, Any]:
    base = msgspec.yaml.decode((DEPLOY / "helm" / "values.schema.yaml").read_bytes(), type=dict[str, Any])
    config = base["properties"]["config"]
    config |= {"type": "object", "additionalProperties": False, "properties": {}}
    for section, (options, readers) in programs.items():
        config["properties"][section] = {
            "type": "object",
            "description": f"[{section}], read by {readers}.",
            # keystoneauth has more, by auth_type; a wrong one is refused by the controller at its start.
            "additionalProperties": {"type": ["string", "number", "boolean"]} if section == "neutron" else False,
            "properties": {option.name: _option(option) for option in options},
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Values of the chart podvif", **base}


def _option(option: Any) -> dict[str, Any]:
    kind = type(option).__name__
    found: dict[str, Any] = {"description": str(option.help)}
    choices = getattr(option.type, "choices", None)
    match kind:
        case "StrOpt" if choices:
            return found | {"enum": list(choices)}
        case "StrOpt":
            return found | {"type": "string"}
        case "BoolOpt":
            return found | {"type": "boolean"}
        case "ListOpt":
            return found | {"type": "array", "items": {"type": "string"}}
        case "IntOpt" | "FloatOpt":
            found["type"] = "integer" if kind == "IntOpt" else "number"
            bounds = {"minimum": option.type.min, "maximum": option.type.max}
            return found | {key: bound for key, bound in bounds.items() if bound is not None}
    raise TypeError(f"{option.name} is a {kind}, for which the schema has no type")


def _page(schema: dict[str, Any], note: str) -> str:
    values = msgspec.yaml.decode((CHART / "values.yaml").read_bytes(), type=dict[str, Any])
    lines = [
        note,
        "# The Helm chart's values\n",
        "`deploy/helm/podvif`; [install](../install.md) says how to use it. `values.schema.json` refuses other names and types.\n",
        "| value | default | meaning |",
        "|---|---|---|",
    ]
    for path, meaning in _flat(schema["properties"], schema["$defs"]):
        lines.append(f"| `{'.'.join(path)}` | {_default(values, path)} | {meaning} |")
    lines += [
        "",
        (
            "`config` takes every option of kuryr.conf, section by section ([kuryr.conf](configuration.md) has them with their"
            " defaults), for instance:\n"
        ),
        "```yaml",
        "config:",
        "  node: {add_timeout: 60, log_format: json}",
        "  neutron_defaults: {pod_subnet: pods, pod_security_groups: [dpdk]}",
        "```",
    ]
    return "\n".join([*lines, ""])


def _flat(
    properties: dict[str, Any], defs: dict[str, Any], above: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], str]]:
    found: list[tuple[tuple[str, ...], str]] = []
    for name, schema in properties.items():
        path = (*above, name)
        if path == ("global",):
            continue
        if "properties" in schema and path != ("config",):
            found += _flat(schema["properties"], defs, path)
        else:
            choices = schema.get("enum", [])
            more = f" One of {', '.join(f'`{json.dumps(value)}`' for value in choices)}." if choices else ""
            found.append((path, f"{schema['description']}{more}"))
    return found


def _default(values: dict[str, Any], path: tuple[str, ...]) -> str:
    value: Any = values
    for name in path:
        value = value[name]
    return f"`{json.dumps(value, ensure_ascii=False)}`" if value not in ("", {}, []) else "none"
