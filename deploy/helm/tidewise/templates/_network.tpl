{{- /* The port of an address: (dict "url" "https://prometheus.example") → 443 */ -}}
{{- define "tidewise.port" -}}
{{- $parts := urlParse .url -}}
{{- $tail := regexFind ":[0-9]+$" $parts.host -}}
{{- $tail | trimPrefix ":" | default (ternary "443" "80" (eq $parts.scheme "https")) -}}
{{- end -}}

{{- /* One rule: (dict "peers" list "ports" list), each port as "9090" */ -}}
{{- define "tidewise.egress" -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* One rule to another component: (dict "root" $ "component" "budget" "port" 9814) */ -}}
{{- define "tidewise.egressInside" -}}
- ports:
    - {port: {{ .port }}, protocol: TCP}
  to:
    - podSelector:
        matchLabels:
          {{- include "tidewise.selector" . | nindent 10 }}
{{- end -}}

{{- define "tidewise.networkPolicy" -}}
{{- $root := .root -}}
{{- $policy := $root.Values.networkPolicy -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "tidewise.fullname" $root }}-{{ .component }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tidewise.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "tidewise.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports: [{port: http, protocol: TCP}]
      {{- with $policy.ingressFrom }}
      from:
        {{- toYaml . | nindent 8 }}
        {{- range $.callers }}
        - podSelector:
            matchLabels:
              {{- include "tidewise.selector" (dict "root" $root "component" .) | nindent 14 }}
        {{- end }}
      {{- end }}
    {{- range .doors }}
    - ports: [{port: {{ .name }}, protocol: TCP}]
      {{- with .from }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
  egress:
    - ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
      {{- with $policy.dns }}
      to:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- range .egress }}
    {{- if eq . "prometheus" }}
    {{- include "tidewise.egress" (dict "peers" $policy.prometheus "ports" (list (include "tidewise.port" (dict "url" $root.Values.prometheus.url)))) | nindent 4 }}
    {{- else if eq . "apiServer" }}
    {{- include "tidewise.egress" (dict "peers" $policy.apiServer.peers "ports" $policy.apiServer.ports) | nindent 4 }}
    {{- else if eq . "alertmanager" }}
    {{- with (dig "recovery" "alertmanager" "" $root.Values.config) }}
    {{- include "tidewise.egress" (dict "peers" $policy.alertmanager "ports" (list (include "tidewise.port" (dict "url" .)))) | nindent 4 }}
    {{- end }}
    {{- else if and (eq . "budget") $root.Values.budget.enabled }}
    {{- include "tidewise.egressInside" (dict "root" $root "component" "budget" "port" 9814) | nindent 4 }}
    {{- else if and (eq . "scale") $root.Values.scale.enabled }}
    {{- include "tidewise.egressInside" (dict "root" $root "component" "scale" "port" 9813) | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- with .extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
