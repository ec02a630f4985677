{{/* Labels of every object. */}}
{{- define "podvif.labels" -}}
app.kubernetes.io/name: podvif
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "podvif.image" -}}
{{- $image := .image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* "true" where podvif is the cluster network. */}}
{{- define "podvif.clusterNetwork" -}}
{{- $enabled := toString .Values.cni.configuration.enabled -}}
{{- if or (eq $enabled "true") (and (eq $enabled "auto") (eq .Values.profile "neutron")) -}}true{{- end -}}
{{- end -}}

{{/* kuryr.conf as YAML: what the chart sets itself, and the user's options over it. */}}
{{- define "podvif.config" -}}
{{- $neutron := eq .Values.profile "neutron" -}}
{{- $address := ternary "0.0.0.0" "127.0.0.1" .Values.monitoring.expose -}}
{{- $controllers := ternary $address "0.0.0.0" .Values.controller.hostNetwork -}}{{/* kubelet asks a pod with a network of its own there */}}
{{- $ours := dict
    "node" (dict "source" (ternary "cluster" "standalone" $neutron) "metrics_bind" (printf "%s:9655" $address))
    "controller" (dict "metrics_bind" (printf "%s:9656" $controllers))
    "kubernetes" (dict "cluster_network" (eq (include "podvif.clusterNetwork" .) "true"))
-}}
{{- if .Values.csi.enabled -}}
{{- $_ := set $ours "csi" (dict
    "endpoint" (printf "%s/plugins/csi.podvif.io/csi.sock" .Values.csi.kubeletDir)
    "registration_dir" (printf "%s/plugins_registry" .Values.csi.kubeletDir)) -}}
{{- end -}}
{{- if .Values.neutron.cloud -}}
{{- $_ := set $ours "neutron" (dict "cloud" .Values.neutron.cloud) -}}
{{- end -}}
{{- mustMergeOverwrite $ours (deepCopy .Values.config) | toYaml -}}
{{- end -}}

{{/* The sections of one program as INI. */}}
{{- define "podvif.ini" -}}
{{- $config := include "podvif.config" .root | fromYaml -}}
{{- range $section := .sections -}}
{{- with get $config $section }}
[{{ $section }}]
{{- range $name, $value := . }}
{{ $name }} = {{ if kindIs "slice" $value }}{{ join "," $value }}{{ else }}{{ $value }}{{ end }}
{{- end }}
{{ end -}}
{{- end -}}
{{- end -}}

{{- define "podvif.nodeIni" -}}
{{- include "podvif.ini" (dict "root" . "sections" (list "vhostuser" "vif_plug_ovs" "node" "csi" "kubernetes")) | trim -}}
{{- end -}}
{{- define "podvif.controllerIni" -}}
{{- include "podvif.ini" (dict "root" . "sections" (list "neutron_defaults" "kubernetes" "controller" "neutron")) | trim -}}
{{- end -}}

{{/* One option of the node's, or its default: dict root, section, option, default. */}}
{{- define "podvif.option" -}}
{{- $config := include "podvif.config" .root | fromYaml -}}
{{- dig .section .option .default $config -}}
{{- end -}}

{{/* Probes by HTTP of a program's metrics_bind. */}}
{{- define "podvif.probes" -}}
{{- $bind := include "podvif.option" . -}}
{{- if $bind }}
{{- $port := regexFind "[0-9]+$" $bind | int -}}
{{- $host := trimSuffix (printf ":%d" $port) $bind | trimAll "[]" -}}
{{- if has $host (list "" "0.0.0.0" "::") }}{{- $host = ternary "127.0.0.1" "" .hostNetwork -}}{{- end }}
ports:
  - {name: metrics, containerPort: {{ $port }}, protocol: TCP}
startupProbe:
  httpGet: {path: /healthz, port: {{ $port }}{{ with $host }}, host: {{ . | quote }}{{ end }}}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /healthz, port: {{ $port }}{{ with $host }}, host: {{ . | quote }}{{ end }}}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet: {path: /readyz, port: {{ $port }}{{ with $host }}, host: {{ . | quote }}{{ end }}}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end }}
{{- end -}}

{{/* Environment by which the API server is reached. */}}
{{- define "podvif.apiServer" -}}
{{- with .Values.apiServer.host }}
- {name: KUBERNETES_SERVICE_HOST, value: {{ . | quote }}}
- {name: KUBERNETES_SERVICE_PORT, value: {{ $.Values.apiServer.port | quote }}}
{{- end }}
{{- end -}}
