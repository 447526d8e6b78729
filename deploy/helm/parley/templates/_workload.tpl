{{/*
A component as a Deployment with its ConfigMap. One template for all five, so that what holds
for pods (security, rolling, probes, spreading) holds for every one. Takes a dict:

  root        the chart's context
  component   gateway, session, worker, cache, inference
  pool        name of a pool, for inference
  values      replicas, image, resources, autoscaling, pod …
  prefix      of the variables: PARLEY_GATEWAY_
  managed     settings that the chart decides
  settings    settings that the user gave
  grace       seconds to stop in
  command     in place of the image's own
  ports       list of {name, port}
  probes      YAML of the container's probes
  env         YAML of variables from Secrets
  mounts, volumes   YAML lists
  account     whether the pod is given the ServiceAccount and its token
*/}}

{{- define "parley.objectName" -}}
{{- $base := include "parley.componentName" . -}}
{{- if .pool -}}{{- printf "%s-%s" $base .pool | trunc 63 | trimSuffix "-" -}}{{- else -}}{{- $base -}}{{- end -}}
{{- end -}}

{{/* The settings of a component's pods, as the data of their ConfigMap. */}}
{{- define "parley.podSettings" -}}
{{- $managed := merge (default (dict) (include "parley.tlsSettings" . | fromYaml)) .managed -}}
{{- include "parley.settingsData" (merge (dict "managed" $managed) .) | trim -}}
{{- end -}}

{{- define "parley.settingsMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "parley.metadata" (merge (dict "name" (include "parley.objectName" .)) .) | nindent 2 }}
data:
  {{- include "parley.podSettings" . | nindent 2 }}
{{- end -}}

{{/* Not empty: something else says how many replicas there are. */}}
{{- define "parley.isScaled" -}}
{{- with .values.autoscaling -}}
{{- if or .enabled (and .kind (ne .kind "none")) -}}scaled{{- end -}}
{{- end -}}
{{- end -}}

{{- define "parley.workload" -}}
{{- $rolling := default (dict "maxSurge" 1 "maxUnavailable" 0) .values.rollingUpdate -}}
{{ include "parley.settingsMap" . }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "parley.metadata" (merge (dict "name" (include "parley.objectName" .)) .) | nindent 2 }}
spec:
  {{- if not (include "parley.isScaled" .) }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate: {{ toJson $rolling }}
  selector:
    matchLabels:
      {{- include "parley.selectorLabels" . | nindent 6 }}
  template:
    {{- include "parley.podTemplate" . | nindent 4 }}
{{- end -}}

{{/* A pod of a component, whatever makes it. `settingsOf`: the component whose settings and
     certificate it has, if they are another's; `revisionLabel`: what tells a roll's pods apart. */}}
{{- define "parley.podTemplate" -}}
{{- $root := .root -}}
{{- $name := include "parley.objectName" (merge (dict "component" (default .component .settingsOf)) .) -}}
{{- $pod := mergeOverwrite (deepCopy $root.Values.podDefaults) (default (dict) .values.pod) -}}
metadata:
  labels:
    {{- include "parley.labels" . | nindent 4 }}
    {{- with $pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/settings: {{ include "parley.podSettings" . | sha256sum }}
    {{- with $pod.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- if .account }}
  serviceAccountName: {{ include "parley.serviceAccountName" . }}
  {{- end }}
  automountServiceAccountToken: {{ default false .account }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add (ceil .grace | int) 15 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with .values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $pod.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $pod.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $pod.spreadOver }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: {{ $pod.spreadOver }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "parley.selectorLabels" . | nindent 10 }}
      matchLabelKeys: [{{ default "pod-template-hash" .revisionLabel }}]
  {{- end }}
  {{- with $pod.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "parley.image" (dict "root" $root "image" .image) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      {{- with .command }}
      command: {{ toJson . }}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      ports:
        {{- range .ports }}
        - name: {{ .name }}
          containerPort: {{ .port }}
        {{- end }}
      envFrom:
        - configMapRef:
            name: {{ $name }}
        {{- with $pod.extraEnvFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- $env := compact (list .env (ternary (toYaml $pod.extraEnv) "" (not (empty $pod.extraEnv)))) }}
      {{- if $env }}
      env:
        {{- join "\n" $env | nindent 8 }}
      {{- end }}
      {{- .probes | nindent 6 }}
      resources:
        {{- toYaml (default .values.resources .resources) | nindent 8 }}
      volumeMounts:
        - name: tmp
          mountPath: /tmp
        {{- if $root.Values.tls.enabled }}
        - name: certificates
          mountPath: /etc/parley/tls
          readOnly: true
        {{- end }}
        {{- with .mounts }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $pod.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $pod.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    {{- if $root.Values.tls.enabled }}
    - name: certificates
      secret:
        secretName: {{ include "parley.tlsSecretName" . }}
        defaultMode: 0440
    {{- end }}
    {{- with .volumes }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $pod.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Probes of a gRPC service. Liveness asks whether the process is at work, and nothing else;
     `startup`: seconds that it may take to be up, with `loads` to be ready, for the first time.
     A start takes seconds of CPU; the bound is for a node that starts all its pods at once and has
     little for each: a pod that is late there is made later by being started again.
     With TLS they ask the admin port instead: the kubelet's gRPC probes know plaintext alone. */}}
{{- define "parley.grpcProbes" -}}
{{- if .root.Values.tls.enabled -}}
{{- include "parley.httpProbes" . -}}
{{- else -}}
startupProbe:
  grpc: {port: {{ .port }}{{ if not .loads }}, service: liveness{{ end }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: {{ div (default 300 .startup) 2 }}
readinessProbe:
  grpc: {port: {{ .port }}}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  grpc: {port: {{ .port }}, service: liveness}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}
{{- end -}}

{{/* Probes of a process that has an admin port alone, or HTTP. */}}
{{- define "parley.httpProbes" -}}
startupProbe:
  httpGet: {path: {{ if .loads }}/readyz{{ else }}/healthz{{ end }}, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: {{ div (default 300 .startup) 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* A headless Service: callers see every pod and choose for themselves. */}}
{{- define "parley.headlessService" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "parley.metadata" (merge (dict "name" (include "parley.componentName" .)) .) | nindent 2 }}
spec:
  clusterIP: None
  selector:
    {{- include "parley.selectorLabels" (dict "root" .root "component" .component) | nindent 4 }}
  ports:
    - name: grpc
      port: {{ .port }}
      targetPort: grpc
      appProtocol: {{ ternary "https" "kubernetes.io/h2c" .root.Values.tls.enabled }}
{{- end -}}

{{- define "parley.podDisruptionBudget" -}}
{{- if .values.podDisruptionBudget.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "parley.metadata" (merge (dict "name" (include "parley.objectName" .)) .) | nindent 2 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- /* Over several nodes: leaders and followers alike, as each takes its replica with it. */}}
      {{- $guarded := ternary (dict "root" .root "pool" .pool) . (gt (int (default 1 .values.nodes)) 1) }}
      {{- include "parley.selectorLabels" $guarded | nindent 6 }}
{{- end -}}
{{- end -}}

{{- define "parley.cpuAutoscaler" -}}
{{- if .values.autoscaling.enabled -}}
{{- $name := include "parley.objectName" . -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "parley.metadata" (merge (dict "name" $name) .) | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ $name }}
  minReplicas: {{ .values.autoscaling.minReplicas }}
  maxReplicas: {{ .values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ .values.autoscaling.targetCPUUtilizationPercentage }}
  {{- with .values.autoscaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}
