{{/* Labels by which the pods are selected. They are those of the kustomization in deploy/base. */}}
{{- define "trainer.selector" -}}
app.kubernetes.io/name: {{ .Release.Name }}
app.kubernetes.io/component: api
{{- end }}

{{/* The metadata of an object with the name of the release and a suffix. */}}
{{- define "trainer.metadata" -}}
{{- $root := index . 0 -}}
name: {{ $root.Release.Name }}{{ index . 1 }}
labels:
  {{- include "trainer.labels" $root | nindent 2 }}
{{- end }}

{{- define "trainer.labels" -}}
{{ include "trainer.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The subject of a binding: the service's account. */}}
{{- define "trainer.subjects" -}}
subjects:
- {kind: ServiceAccount, name: {{ .Release.Name }}, namespace: {{ .Release.Namespace }}}
{{- end }}

{{/* The prefix of kinds that belong to all namespaces where the service has rights in all. */}}
{{- define "trainer.cluster" -}}
{{- if eq .Values.scope "cluster" }}Cluster{{ end -}}
{{- end }}
