{{- /*
The pod of one component:
  root, component, values (the component's block), image (controllers | exporters), command (argv), tokens (names),
  port, doors (further ones, as tidewise.doors has them), api (whether it talks to the API server), state (whether it keeps files), claim ("" for an emptyDir), and
  node, of one that reads its node: pid, network (whether it has the node's), paths (name -> path on the node, mountPath).
With a web configuration the exporters may want TLS and a password on every path, which no probe of Kubernetes' has.
*/ -}}
{{- define "tidewise.pod" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $node := .node | default dict -}}
{{- $web := ternary $root.Values.exporters.web dict (eq .image "exporters") -}}
{{- $command := .command -}}
{{- if $web.existingSecret -}}{{- $command = concat .command (list "--web.config.file" (printf "/etc/tidewise/web/%s" $web.key)) -}}{{- end -}}
metadata:
  labels:
    {{- include "tidewise.labels" . | nindent 4 }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "tidewise.config" $root | sha256sum }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "tidewise.fullname" $root }}-{{ .component }}
  automountServiceAccountToken: {{ .api }}
  enableServiceLinks: false
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "tidewise.podSecurity" . | nindent 4 }}
  {{- with $values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- if $node.pid }}
  hostPID: true
  {{- end }}
  {{- if $node.network }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "tidewise.image" . | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: {{ toJson $command }}
      {{- with $values.env }}
      env:
        {{- range $name, $value := . }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
        {{- end }}
      {{- end }}
      ports:
        - {name: http, containerPort: {{ .port }}, protocol: TCP}
        {{- range .doors }}
        - {name: {{ .name }}, containerPort: {{ .port }}, protocol: TCP}
        {{- end }}
      livenessProbe:
        {{ if $web.existingSecret }}tcpSocket: {port: http}{{ else }}httpGet: {path: /-/healthy, port: http}{{ end }}
        initialDelaySeconds: 10
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      # Not ready: its last step failed. It is reached all the same, its metrics say why.
      readinessProbe:
        {{ if $web.existingSecret }}tcpSocket: {port: http}{{ else }}httpGet: {path: /-/ready, port: http}{{ end }}
        periodSeconds: 10
        timeoutSeconds: 5
      securityContext:
        {{- include "tidewise.containerSecurity" . | nindent 8 }}
      {{- with $values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - {name: config, mountPath: /etc/tidewise/config, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- if .state }}
        - {name: state, mountPath: /var/lib/tidewise}
        {{- end }}
        {{- range $name := .tokens }}
        {{- if (index $root.Values.tokens $name).existingSecret }}
        - {name: token-{{ $name }}, mountPath: /etc/tidewise/secrets/token-{{ $name }}, readOnly: true}
        {{- end }}
        {{- end }}
        {{- range $values.extraSecrets }}
        - {name: secret-{{ . }}, mountPath: /etc/tidewise/secrets/{{ . }}, readOnly: true}
        {{- end }}
        {{- range $values.extraClaims }}
        - {name: claim-{{ . }}, mountPath: /data/{{ . }}, readOnly: true}
        {{- end }}
        {{- if $web.existingSecret }}
        - {name: web, mountPath: /etc/tidewise/web, readOnly: true}
        {{- end }}
        {{- range $name, $path := $node.paths }}
        - {name: {{ $name }}, mountPath: {{ $path.mountPath }}, readOnly: true, mountPropagation: HostToContainer}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "tidewise.fullname" $root }}}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- if .state }}
    - name: state
      {{- if .claim }}
      persistentVolumeClaim: {claimName: {{ .claim }}}
      {{- else }}
      emptyDir: {sizeLimit: 1Gi}
      {{- end }}
    {{- end }}
    {{- range $name := .tokens }}
    {{- $token := index $root.Values.tokens $name }}
    {{- if $token.existingSecret }}
    - name: token-{{ $name }}
      secret:
        secretName: {{ $token.existingSecret }}
        items: [{key: {{ $token.key }}, path: token}]
        defaultMode: 0440
    {{- end }}
    {{- end }}
    {{- range $values.extraSecrets }}
    - name: secret-{{ . }}
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- range $values.extraClaims }}
    - name: claim-{{ . }}
      persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}  # and so its files keep their owners
    {{- end }}
    {{- if $web.existingSecret }}
    - name: web
      secret: {secretName: {{ $web.existingSecret }}, defaultMode: 0440}
    {{- end }}
    {{- range $name, $path := $node.paths }}
    - name: {{ $name }}
      hostPath: {path: {{ $path.path }}}
    {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "tidewise.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "tidewise.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
