{{/*
A pool of engines that take several nodes each: a LeaderWorkerSet with its ConfigMap. A replica is
a group of pods: the leader serves as any engine does, the followers hold their parts of the model
and serve nobody (docs/fleet.md), so they are a component of their own that no Service selects.
LWS_LEADER_ADDRESS and LWS_WORKER_INDEX come from LeaderWorkerSet's controller, before `env`.
Takes what `parley.workload` takes.
*/}}
{{- define "parley.leaderWorkerSet" -}}
{{- $prefix := .prefix -}}
{{- $env := list .env
      (printf "- name: %sNODE_RANK\n  value: $(LWS_WORKER_INDEX)" $prefix)
      (printf "- name: %sLEADER_ADDRESS\n  value: $(LWS_LEADER_ADDRESS)" $prefix)
      "- name: VLLM_HOST_IP\n  valueFrom:\n    fieldRef: {fieldPath: status.podIP}" -}}
{{- $common := merge (dict "env" (join "\n" (compact $env)) "revisionLabel" "leaderworkerset.sigs.k8s.io/template-revision-hash") . -}}
{{- $follower := merge (dict
      "component" "inference-follower" "settingsOf" .component
      "ports" (list (dict "name" "admin" "port" 9053))
      "probes" (include "parley.httpProbes" (dict "loads" true "startup" (int .values.startupSeconds)))) $common -}}
{{- $annotations := dict -}}
{{- with .values.exclusiveTopology -}}
{{- $annotations = dict "leaderworkerset.sigs.k8s.io/exclusive-topology" . -}}
{{- end -}}
{{ include "parley.settingsMap" . }}
---
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata:
  {{- include "parley.metadata" (merge (dict "name" (include "parley.objectName" .) "annotations" $annotations) .) | nindent 2 }}
spec:
  {{- if not (include "parley.isScaled" .) }}
  replicas: {{ .values.replicas }}
  {{- end }}
  # Leader and followers load at the same time: neither is ready without the others.
  startupPolicy: LeaderCreated
  networkConfig: {subdomainPolicy: Shared}
  rolloutStrategy:
    type: RollingUpdate
    rollingUpdateConfiguration: {{ toJson .values.rollingUpdate }}
  leaderWorkerTemplate:
    size: {{ .values.nodes }}
    # One that is lost takes the engine with it.
    restartPolicy: RecreateGroupOnPodRestart
    leaderTemplate:
      {{- include "parley.podTemplate" $common | nindent 6 }}
    workerTemplate:
      {{- include "parley.podTemplate" $follower | nindent 6 }}
{{- end -}}

{{/* What a pool's replicas are, to those that scale them. */}}
{{- define "parley.poolKind" -}}
{{- if gt (int (default 1 .values.nodes)) 1 -}}
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
{{- else -}}
apiVersion: apps/v1
kind: Deployment
{{- end -}}
{{- end -}}
