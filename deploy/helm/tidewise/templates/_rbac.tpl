{{- /*
Workloads that the scaler reaches by its ServiceAccount, as YAML: items: [{name, namespace, resource, object, act, replaced,
floors, drained}]; one of several targets of a workload is an item as well. Replaced: recovery may have instances of it
replaced. Floors: a floor may be put under its autoscaler. Drained: its idlest pods go first.
*/ -}}
{{- define "tidewise.targets" -}}
{{- $items := list -}}
{{- $values := .Values -}}
{{- $replaced := list -}}
{{- range $target := dig "recovery" "targets" list .Values.config -}}
{{- if $target.replace -}}{{- $replaced = append $replaced $target.workload -}}{{- end -}}
{{- end -}}
{{- range $workload := .Values.config.workloads -}}
{{- $parts := $workload.target.several | default list -}}
{{- $targets := list -}}
{{- range concat (list $workload.target) $parts -}}
{{- $targets = append $targets (ternary .target . (hasKey . "target")) -}}
{{- end -}}
{{- range $one := $targets -}}
{{- $target := $one.kubernetes -}}
{{- if and $target (not $target.kubeconfig) -}}
{{- $namespace := $target.namespace | default "default" -}}
{{- if and (eq $values.rbac.scope "namespace") $values.rbac.namespaces (not (has $namespace $values.rbac.namespaces)) -}}
{{- fail (printf "config.workloads: %s: its target is in the namespace '%s', which is not in rbac.namespaces; add it there" $workload.name $namespace) -}}
{{- end -}}
{{- $item := dict "name" $workload.name "namespace" $namespace "act" (eq ($workload.mode | default "shadow") "act") -}}
{{- $identity := printf "%s/%s" ($workload.namespace | default "default") $workload.name -}}
{{- $_ := set $item "replaced" (and $item.act (has $identity $replaced)) -}}
{{- $_ := set $item "floors" (and $item.act (empty $parts) (ne ($target.beside | default "floor") "refuse")) -}}
{{- $_ := set $item "drained" (and $item.act (not (empty $workload.in_hand)) (not $target.statefulset)) -}}
{{- if $target.deployment -}}
{{- $_ := set $item "resource" "deployments/scale" -}}
{{- $_ := set $item "object" $target.deployment -}}
{{- else if $target.statefulset -}}
{{- $_ := set $item "resource" "statefulsets/scale" -}}
{{- $_ := set $item "object" $target.statefulset -}}
{{- else if and $values.rbac.create (not $values.rbac.extraRules) -}}
{{- fail (printf "config.workloads: %s: for a generic target give rbac.extraRules the right on its scale, such as {apiGroups: [argoproj.io], resources: [rollouts/scale], verbs: [get, update]}" $workload.name) -}}
{{- end -}}
{{- $items = append $items $item -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "items" $items) -}}
{{- end -}}

{{- /*
Rules for some of them: (dict "items" list "named" bool "extra" list). Named: only on the objects that are named. To set
a number, and to see who else sets it, only where a workload acts.
*/ -}}
{{- define "tidewise.rules" -}}
{{- $acts := false -}}
{{- $replaced := false -}}
{{- $floors := false -}}
{{- $drained := false -}}
{{- $named := .named -}}
{{- $groups := dict -}}
{{- range $item := .items -}}
{{- if $item.act -}}{{- $acts = true -}}{{- end -}}
{{- if $item.replaced -}}{{- $replaced = true -}}{{- end -}}
{{- if $item.floors -}}{{- $floors = true -}}{{- end -}}
{{- if $item.drained -}}{{- $drained = true -}}{{- end -}}
{{- if $item.resource -}}
{{- $key := printf "%s %s" $item.resource (ternary "act" "read" $item.act) -}}
{{- $_ := set $groups $key (append (get $groups $key | default list) $item.object) -}}
{{- end -}}
{{- end -}}
{{- if $named }}
{{- range $key, $objects := $groups }}
{{- $parts := splitList " " $key }}
- apiGroups: [apps]
  resources: [{{ first $parts }}]
  resourceNames: {{ $objects | uniq | sortAlpha | toJson }}
  verbs: {{ ternary "[get, update]" "[get]" (eq (last $parts) "act") }}
{{- end }}
{{- else }}
- apiGroups: [apps]
  resources: [deployments/scale, statefulsets/scale]
  verbs: {{ ternary "[get, update]" "[get]" $acts }}
{{- end }}
- apiGroups: [""]
  resources: [pods]
  verbs: {{ ternary "[list, patch]" "[list]" $drained }}{{ if $drained }}  # their deletion cost: the idlest go first{{ end }}
{{- if $acts }}
# Another scaler of the same object would undo what this one does, so it looks for one before it sets a number.
{{- if $floors }} Where it finds
# one it raises that one's minimum instead, for a while.
{{- end }}
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: {{ ternary "[get, list, patch]" "[list]" $floors }}
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: {{ ternary "[get, list, patch]" "[list]" $floors }}
{{- end }}
{{- if $replaced }}
# The victim of a replacement goes once the new one works; a PodDisruptionBudget is asked.
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
{{- end }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}
