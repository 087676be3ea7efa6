{{- /*
tidewise.yaml: what `config` says, and where it says nothing, what only the chart knows. As YAML.
*/ -}}
{{- define "tidewise.config" -}}
{{- $values := .Values -}}
{{- $full := include "tidewise.fullname" . -}}
{{- $state := "/var/lib/tidewise" -}}
{{- $url := required "prometheus.url is missing: where Prometheus is reached from the cluster, such as http://prometheus.monitoring:9090" $values.prometheus.url -}}
{{- $token := dict -}}
{{- range $name, $secret := $values.tokens -}}
{{- if $secret.existingSecret -}}
{{- $_ := set $token $name (printf "/etc/tidewise/secrets/token-%s/token" $name) -}}
{{- end -}}
{{- end -}}
{{- $config := deepCopy $values.config -}}
{{- $known := dict
      "prometheus" (dict "url" $url)
      "exporters" (dict "listen" (list "0.0.0.0:9811"))
      "forecast" (dict "listen" (list "0.0.0.0:9812"))
      "scale" (dict
        "listen" (list "0.0.0.0:9813")
        "records" (printf "%s/decisions" $state)
        "replacements" (printf "%s/replacements.json" $state)
        "overrides" (printf "%s/overrides.jsonl" $state)) -}}
{{- if $token.prometheus -}}{{- $_ := set $known.prometheus "bearer_file" $token.prometheus -}}{{- end -}}
{{- if $token.scale -}}{{- $_ := set $known.scale "token_file" $token.scale -}}{{- end -}}
{{- if kindIs "map" ($config.scale).external_metrics -}}
{{- $_ := set $known.scale "external_metrics" (dict "listen" (list "0.0.0.0:9816")) -}}
{{- end -}}
{{- if kindIs "map" ($config.scale).external_scaler -}}
{{- $_ := set $known.scale "external_scaler" (dict "listen" "0.0.0.0:9817") -}}
{{- end -}}
{{- if $values.scale.lease.enabled -}}
{{- $_ := set $known.scale "lease" (dict "name" (printf "%s-scale" $full) "namespace" .Release.Namespace "duration_seconds" (int $values.scale.lease.durationSeconds)) -}}
{{- end -}}
{{- if $values.exporters.host.enabled -}}
{{- $_ := set $known.exporters "host" (dict "proc" "/host/proc" "root" "/host" "cgroup" "/sys/fs/cgroup") -}}
{{- end -}}
{{- $exporters := $config.exporters | default dict -}}
{{- if $exporters.latency -}}
{{- $_ := set $known.exporters "latency" (dict "state_folder" (printf "%s/latency" $state)) -}}
{{- end -}}
{{- $cost := dict -}}
{{- if not (kindIs "invalid" ($exporters.cost).aws) -}}
{{- $_ := set $cost "aws" (dict "state_file" (printf "%s/cost-explorer.json" $state)) -}}
{{- end -}}
{{- if eq (include "tidewise.asksLedger" .) "true" -}}
{{- $ledger := dict -}}
{{- if $values.budget.enabled -}}{{- $_ := set $ledger "url" (printf "http://%s-budget:9814" $full) -}}{{- end -}}
{{- if $token.budget -}}{{- $_ := set $ledger "token_file" $token.budget -}}{{- end -}}
{{- $_ := set $cost "ledger" $ledger -}}
{{- end -}}
{{- if $cost -}}{{- $_ := set $known.exporters "cost" $cost -}}{{- end -}}
{{- if $config.budget -}}
{{- $budget := dict "listen" (list "0.0.0.0:9814") "ledger" (printf "%s/ledger.sqlite" $state) -}}
{{- if $values.budget.enabled -}}{{- $_ := set $budget "url" (printf "http://%s-budget:9814" $full) -}}{{- end -}}
{{- if $token.budget -}}{{- $_ := set $budget "token_file" $token.budget -}}{{- end -}}
{{- $_ := set $known "budget" $budget -}}
{{- end -}}
{{- if $config.recovery -}}
{{- $recovery := dict "listen" (list "0.0.0.0:9815") "journal" (printf "%s/recovery.db" $state) -}}
{{- if $token.recovery -}}{{- $_ := set $recovery "token_file" $token.recovery -}}{{- end -}}
{{- $_ := set $known "recovery" $recovery -}}
{{- range $target := $config.recovery.targets -}}
{{- if and $target.replace $values.scale.enabled -}}
{{- $replace := dict "url" (printf "http://%s-scale:9813" $full) -}}
{{- if $token.scale -}}{{- $_ := set $replace "token_file" $token.scale -}}{{- end -}}
{{- $_ := set $target "replace" (merge $target.replace $replace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml (merge $config $known) -}}
{{- end -}}

{{- /* Where the scaler's followers ask, each where `config` has a section for it: [{name, port, servicePort, from}] */ -}}
{{- define "tidewise.doors" -}}
{{- $scale := (include "tidewise.config" . | fromYaml).scale -}}
{{- $doors := list -}}
{{- with $scale.external_metrics -}}
{{- $port := regexFind "[0-9]+$" (first .listen) -}}
{{- $doors = append $doors (dict "name" "metrics-api" "port" $port "servicePort" "443" "from" $.Values.networkPolicy.apiServer.peers) -}}
{{- end -}}
{{- with $scale.external_scaler -}}
{{- $port := regexFind "[0-9]+$" .listen -}}
{{- $doors = append $doors (dict "name" "external-scaler" "port" $port "servicePort" $port "from" $.Values.networkPolicy.ingressFrom) -}}
{{- end -}}
{{- toYaml $doors -}}
{{- end -}}

{{- /* What is watched over the network, as JSON: every exporter that `config` has a section for, but those of a node. */ -}}
{{- define "tidewise.services" -}}
{{- $names := list -}}
{{- range $name, $section := omit (.Values.config.exporters | default dict) "listen" "host" "gpu" -}}
{{- if not (kindIs "invalid" $section) -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{- /* Whether the cost exporter asks the ledger: "true" or "false". */ -}}
{{- define "tidewise.asksLedger" -}}
{{- not (kindIs "invalid" ((.Values.config.exporters).cost).ledger) -}}
{{- end -}}

{{- /* What cannot be, although each value alone is right. */ -}}
{{- define "tidewise.validate" -}}
{{- if and .Values.budget.enabled (not .Values.config.budget) -}}
{{- fail "budget.enabled: there is no config.budget; give its total, for example config.budget.total: 24900 KRW" -}}
{{- end -}}
{{- if and .Values.recovery.enabled (not (and .Values.config.recovery .Values.config.recovery.targets)) -}}
{{- fail "recovery.enabled: there are no config.recovery.targets; docs/recovery.md shows a first one" -}}
{{- end -}}
{{- $cost := (.Values.config.exporters).cost | default dict -}}
{{- if .Values.exporters.services.enabled -}}
{{- if not (include "tidewise.services" . | fromJsonArray) -}}
{{- fail "exporters.services.enabled: config.exporters names nothing to watch; give it queue, latency, workflow, database or cost" -}}
{{- end -}}
{{- if and (not (kindIs "invalid" $cost.aws)) (not .Values.exporters.services.persistence.enabled) -}}
{{- fail "config.exporters.cost.aws: each question to AWS costs money, and when it was asked would be lost with the pod; set exporters.services.persistence.enabled" -}}
{{- end -}}
{{- end -}}
{{- if eq (include "tidewise.asksLedger" .) "true" -}}
{{- if not (or $cost.ledger.url .Values.budget.enabled) -}}
{{- fail "config.exporters.cost.ledger.url: missing, and the chart's own ledger is off; name the ledger, or set budget.enabled" -}}
{{- end -}}
{{- if not (or $cost.ledger.token_file .Values.tokens.budget.existingSecret) -}}
{{- fail "config.exporters.cost.ledger.token_file: missing; set tokens.budget.existingSecret, the ledger answers nobody without it" -}}
{{- end -}}
{{- end -}}
{{- if and (gt (int .Values.scale.replicas) 1) (not .Values.scale.lease.enabled) -}}
{{- fail "scale.replicas: more than one without scale.lease.enabled; two scalers on one target need one that acts" -}}
{{- end -}}
{{- range $door := list "external_metrics" "external_scaler" -}}
{{- if and (gt (int $.Values.scale.replicas) 1) (kindIs "map" (index ($.Values.config.scale | default dict) $door)) -}}
{{- fail (printf "config.scale.%s: its Service leads to any of scale.replicas, and only the one that leads has a number; run one replica, or have the metric read from Prometheus" $door) -}}
{{- end -}}
{{- end -}}
{{- if and (gt (int .Values.scale.replicas) 1) .Values.scale.persistence.enabled -}}
{{- fail "scale.persistence.enabled: its volume belongs to one pod; run one replica, or let records be lost with their pod" -}}
{{- end -}}
{{- if and .Values.rbac.namespaces (eq .Values.rbac.scope "cluster") -}}
{{- fail "rbac.namespaces: found with rbac.scope cluster; a ClusterRole holds everywhere, take one of the two out" -}}
{{- end -}}
{{- end -}}
