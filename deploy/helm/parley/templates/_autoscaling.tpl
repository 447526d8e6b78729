{{/*
Engines scale on the work there is, told in engines by session (docs/fleet.md), never on CPU: a
replica that waits for its GPU is idle to the kernel. The name that a pool serves its model as:
*/}}
{{- define "parley.servedModel" -}}
{{- $settings := .values.settings -}}
{{- coalesce $settings.modelId (base (default "" $settings.model) | trimAll ".") $settings.engine -}}
{{- end -}}

{{- define "parley.engineAutoscaler" -}}
{{- $name := include "parley.objectName" . -}}
{{- $scaling := .values.autoscaling -}}
{{- if eq $scaling.kind "hpa" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "parley.metadata" (merge (dict "name" $name) .) | nindent 2 }}
spec:
  scaleTargetRef:
    {{- include "parley.poolKind" . | nindent 4 }}
    name: {{ $name }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: External
      external:
        metric:
          name: parley_session_engine_demand
          selector:
            matchLabels:
              model: {{ include "parley.servedModel" . | quote }}
        target:
          type: AverageValue
          averageValue: {{ $scaling.target | quote }}
  behavior:
    {{- toYaml (default (dict "scaleDown" (dict "stabilizationWindowSeconds" (int $scaling.scaleDownSeconds))) $scaling.behavior) | nindent 4 }}
{{- else if eq $scaling.kind "keda" -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "parley.metadata" (merge (dict "name" $name) .) | nindent 2 }}
spec:
  scaleTargetRef:
    {{- include "parley.poolKind" . | nindent 4 }}
    name: {{ $name }}
  minReplicaCount: {{ $scaling.minReplicas }}
  maxReplicaCount: {{ $scaling.maxReplicas }}
  cooldownPeriod: {{ $scaling.scaleDownSeconds }}
  pollingInterval: 5
  {{- if gt (int $scaling.minReplicas) 0 }}
  # What stands while Prometheus cannot be asked: as many as there are, not fewer.
  fallback:
    failureThreshold: 3
    replicas: {{ $scaling.minReplicas }}
    behavior: currentReplicasIfHigher
  {{- end }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- toYaml (default (dict "scaleDown" (dict "stabilizationWindowSeconds" (int $scaling.scaleDownSeconds))) $scaling.behavior) | nindent 8 }}
  triggers:
    - type: prometheus
      metadata:
        serverAddress: {{ $scaling.prometheus }}
        query: max(max_over_time(parley_session_engine_demand{namespace={{ .root.Release.Namespace | quote }},model={{ include "parley.servedModel" . | quote }}}[30s]))
        threshold: {{ $scaling.target | quote }}
{{- end -}}
{{- end -}}
