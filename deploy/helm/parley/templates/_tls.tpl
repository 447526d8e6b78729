{{/*
TLS between the services. Each component has a Secret of its own with tls.crt, tls.key and
ca.crt (cert-manager's names), named in `tls.secrets` or made by cert-manager; worker's is
session's.
*/}}

{{- define "parley.tlsOwner" -}}
{{- ternary "session" (default .component .settingsOf) (eq .component "worker") -}}
{{- end -}}

{{- define "parley.tlsSecretName" -}}
{{- $owner := include "parley.tlsOwner" . -}}
{{- $given := index .root.Values.tls.secrets $owner -}}
{{- if $given -}}
{{- $given -}}
{{- else if .root.Values.tls.certManager.enabled -}}
{{- include "parley.componentName" (dict "root" .root "component" $owner) }}-tls
{{- else -}}
{{- fail (printf "tls.secrets.%s: name the Secret with tls.crt, tls.key and ca.crt, or set tls.certManager.enabled" $owner) -}}
{{- end -}}
{{- end -}}

{{/* The settings that TLS adds to every service. */}}
{{- define "parley.tlsSettings" -}}
{{- if .root.Values.tls.enabled -}}
tls: {{ ternary "mutual" "server" .root.Values.tls.mutual }}
tlsCaFile: /etc/parley/tls/ca.crt
tlsCertificateFile: /etc/parley/tls/tls.crt
tlsKeyFile: /etc/parley/tls/tls.key
{{- end -}}
{{- end -}}

{{/* The names by which a component's pods are called. */}}
{{- define "parley.tlsNames" -}}
{{- $name := include "parley.componentName" . -}}
- {{ $name }}
- {{ $name }}.{{ .root.Release.Namespace }}
- {{ $name }}.{{ .root.Release.Namespace }}.svc
- {{ $name }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end -}}
