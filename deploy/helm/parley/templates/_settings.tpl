{{/*
Settings as environment variables. A key of `settings` is a setting's name in camelCase, as
docs/settings.md has it after the service's prefix; values.schema.json knows each one.
*/}}

{{/*
A value as text: whole numbers stay whole (YAML's numbers are floats to a template), objects and
lists are JSON.
*/}}
{{- define "parley.settingValue" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . -}}{{- int64 . -}}{{- else -}}{{- . -}}{{- end -}}
{{- else if or (kindIs "map" .) (kindIs "slice" .) -}}
{{- toJson . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* `data` of a ConfigMap; `prefix`, `managed` (what the chart sets), `settings` (the user's). */}}
{{- define "parley.settingsData" -}}
{{- range $key, $value := .managed }}
{{ $.prefix }}{{ snakecase $key | upper }}: {{ include "parley.settingValue" $value | quote }}
{{- end }}
{{- range $key, $value := .settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $.prefix }}{{ snakecase $key | upper }}: {{ include "parley.settingValue" $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What every service is told; `adminPort`. */}}
{{- define "parley.commonSettings" -}}
host: 0.0.0.0
adminHost: 0.0.0.0
adminPort: {{ .adminPort }}
logLevel: {{ .root.Values.log.level }}
logFormat: {{ .root.Values.log.format }}
otlpEndpoint: {{ .root.Values.telemetry.otlpEndpoint | quote }}
traceSampleRatio: {{ .root.Values.telemetry.traceSampleRatio }}
{{- end -}}

{{/* Variables from Secrets: the connection strings. */}}
{{- define "parley.mongodbEnv" -}}
- name: {{ .prefix }}MONGODB_URI
{{- if .root.Values.mongodb.embedded.enabled }}
  value: mongodb://{{ include "parley.componentName" (dict "root" .root "component" "mongodb") }}:27017
{{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ required "mongodb.existingSecret: name the Secret that holds MongoDB's connection string, or set mongodb.embedded.enabled to try Parley out" .root.Values.mongodb.existingSecret }}
      key: {{ .root.Values.mongodb.uriKey }}
{{- end }}
{{- end -}}

{{/* `variable`, and `key`: the Secret's. `database`: the embedded server's number. */}}
{{- define "parley.redisEnv" -}}
- name: {{ .variable }}
{{- if .root.Values.redis.embedded.enabled }}
  value: redis://{{ include "parley.componentName" (dict "root" .root "component" "redis") }}:6379/0
{{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ required "redis.existingSecret: name the Secret that holds the URLs of Redis, or set redis.embedded.enabled to try Parley out" .root.Values.redis.existingSecret }}
      key: {{ .key }}
{{- end }}
{{- end -}}
