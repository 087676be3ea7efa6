{{- /*
The pod of one component:
  root, component, values (the component's block), image (controllers | exporters), command (argv), tokens (names),
  port, api (whether it talks to the API server), state (whether it keeps files), claim ("" for an emptyDir).
*/ -}}
{{- define "tidewise.pod" -}}
{{- $root := .root -}}
{{- $values := .values -}}
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
  {{- if .host }}
  hostPID: true
  hostNetwork: {{ $values.hostNetwork }}
  {{- if $values.hostNetwork }}
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "tidewise.image" . | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: {{ toJson .command }}
      ports:
        - {name: http, containerPort: {{ .port }}, protocol: TCP}
      livenessProbe:
        httpGet: {path: /-/healthy, port: http}
        initialDelaySeconds: 10
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      # Not ready: its last step failed. It is reached all the same, its metrics say why.
      readinessProbe:
        httpGet: {path: /-/ready, port: http}
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
        {{- if .host }}
        - {name: host, mountPath: /host, readOnly: true, mountPropagation: HostToContainer}
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
    {{- if .host }}
    - name: host
      hostPath: {path: /}
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
