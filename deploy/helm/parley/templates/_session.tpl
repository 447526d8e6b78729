{{/* What session and worker share: where the stores, the engines and the cache are. */}}

{{- define "parley.sessionManaged" -}}
port: 50051
inferenceTargets: kubernetes:///{{ include "parley.componentName" (dict "root" .root "component" "inference") }}.{{ .root.Release.Namespace }}:grpc
{{- if .root.Values.cache.enabled }}
cacheTargets: {{ include "parley.dnsTarget" (dict "root" .root "component" "cache" "port" 50052) }}
{{- end }}
mongodbDatabase: {{ .root.Values.mongodb.database }}
{{- end -}}

{{- define "parley.sessionEnv" -}}
{{ include "parley.mongodbEnv" (dict "root" .root "prefix" "PARLEY_SESSION_") }}
{{ include "parley.redisEnv" (dict "root" .root "variable" "PARLEY_SESSION_LOG_REDIS_URL" "key" .root.Values.redis.logUrlKey) }}
{{- end -}}

{{/* The stores' certificates; `stores`: which of them. */}}
{{- define "parley.tlsMounts" -}}
{{- range $store := .stores }}
{{- if (index $.root.Values $store).tlsSecret }}
- name: {{ $store }}-tls
  mountPath: /etc/parley/{{ $store }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "parley.tlsVolumes" -}}
{{- range $store := .stores }}
{{- with (index $.root.Values $store).tlsSecret }}
- name: {{ $store }}-tls
  secret:
    secretName: {{ . }}
{{- end }}
{{- end }}
{{- end -}}
