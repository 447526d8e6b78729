{{/*
Engines scale on the requests that they have and that wait for them, never on CPU: a replica
that waits for its GPU is idle to the kernel.
*/}}
{{- define "parley.engineQuery" -}}
{{- $pods := printf "namespace=\"%s\",pod=~\"%s-.*\"" .root.Release.Namespace (include "parley.objectName" .) -}}
sum(parley_inference_running{ {{- $pods -}} }) + sum(parley_inference_waiting{ {{- $pods -}} })
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
    apiVersion: apps/v1
    kind: Deployment
    name: {{ $name }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: Pods
      pods:
        metric:
          name: parley_inference_requests
        target:
          type: AverageValue
          averageValue: {{ $scaling.targetRequests | quote }}
  behavior:
    {{- toYaml (default (dict "scaleDown" (dict "stabilizationWindowSeconds" (int $scaling.scaleDownSeconds))) $scaling.behavior) | nindent 4 }}
{{- else if eq $scaling.kind "keda" -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "parley.metadata" (merge (dict "name" $name) .) | nindent 2 }}
spec:
  scaleTargetRef:
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
        query: {{ include "parley.engineQuery" . | quote }}
        threshold: {{ $scaling.targetRequests | quote }}
{{- end -}}
{{- end -}}
