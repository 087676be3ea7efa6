{{- /*
One component with everything of its own: ServiceAccount, Deployment (or DaemonSet), Service, claim and NetworkPolicy.
As for tidewise.pod, and: egress (names of what it may reach), extraEgress (rules). With `node`: one pod a node. Zero
replicas are none.
*/ -}}
{{- define "tidewise.component" -}}
{{- $root := .root -}}
{{- $name := printf "%s-%s" (include "tidewise.fullname" $root) .component -}}
{{- $persistence := .values.persistence | default dict -}}
{{- $claim := "" -}}
{{- if $persistence.enabled -}}{{- $claim = $persistence.existingClaim | default $name -}}{{- end -}}
{{- $pod := merge (dict "claim" $claim) . -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tidewise.labels" . | nindent 4 }}
  {{- with .values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
---
apiVersion: apps/v1
kind: {{ if .node }}DaemonSet{{ else }}Deployment{{ end }}
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tidewise.labels" . | nindent 4 }}
spec:
  {{- if not .node }}
  replicas: {{ ternary .values.replicas 1 (hasKey .values "replicas") }}
  strategy: {type: Recreate}  # two of them would decide, or write one file, at once
  {{- end }}
  selector:
    matchLabels:
      {{- include "tidewise.selector" . | nindent 6 }}
  template:
    {{- include "tidewise.pod" $pod | nindent 4 }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tidewise.labels" . | nindent 4 }}
    tidewise-job: {{ .job }}
spec:
  {{- if .node }}
  clusterIP: None
  {{- end }}
  publishNotReadyAddresses: true  # one that fails says on /metrics why
  selector:
    {{- include "tidewise.selector" . | nindent 4 }}
  ports:
    - {name: http, port: {{ .port }}, targetPort: http, protocol: TCP}
    {{- range .doors }}
    - {name: {{ .name }}, port: {{ .servicePort }}, targetPort: {{ .name }}, protocol: TCP}
    {{- end }}
{{- if and $persistence.enabled (not $persistence.existingClaim) }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tidewise.labels" . | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep  # what was spent and what was done outlives the release
    {{- with $persistence.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  accessModes: [ReadWriteOnce]
  {{- if not (kindIs "invalid" $persistence.storageClass) }}
  storageClassName: {{ $persistence.storageClass | quote }}
  {{- end }}
  resources:
    requests: {storage: {{ $persistence.size }}}
{{- end }}
{{- if and $root.Values.networkPolicy.enabled (not (.node).network) }}
---
{{ include "tidewise.networkPolicy" . }}
{{- end }}
{{- end -}}
