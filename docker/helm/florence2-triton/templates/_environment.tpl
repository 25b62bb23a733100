{{- /* Formats integers as integers: Helm reads 268435456 as 2.68435456e+08. */}}
{{- define "florence2-triton.scalar" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ printf "%.0f" . }}{{ else }}{{ toString . }}{{ end -}}
{{- end }}

{{- define "florence2-triton.environment" -}}
- name: FLORENCE2_ADDRESS
  value: {{ .Values.address | quote }}
- name: FLORENCE2_HTTP_ADDRESS
  value: {{ ternary .Values.address "127.0.0.1" (ne (include "florence2-triton.servesHttp" .) "") | quote }}
- name: FLORENCE2_HTTP_PORT
  value: {{ .Values.ports.http | quote }}
- name: FLORENCE2_GRPC_PORT
  value: {{ .Values.ports.grpc | quote }}
- name: FLORENCE2_METRICS_PORT
  value: {{ .Values.ports.metrics | quote }}
- name: FLORENCE2_HEALTH_PORT
  value: {{ .Values.ports.health | quote }}
- name: FLORENCE2_GRPC_HEALTH_PORT
  value: {{ .Values.ports.grpcHealth | quote }}
- name: FLORENCE2_EXIT_TIMEOUT_SECONDS
  value: {{ .Values.shutdown.exitTimeoutSeconds | quote }}
# Refuse to start rather than run on the CPU unnoticed.
- name: FLORENCE2_REQUIRE_GPU
  value: {{ ternary "1" "0" (gt (int .Values.gpu.count) 0) | quote }}
{{- with include "florence2-triton.served" . }}
{{ . }}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: FLORENCE2_{{ upper $name }}
  value: {{ include "florence2-triton.scalar" $value | quote }}
{{- end }}
{{- if .Values.tls.secretName }}
- name: FLORENCE2_GRPC_TLS_CERTIFICATE
  value: /etc/florence2/tls/tls.crt
- name: FLORENCE2_GRPC_TLS_KEY
  value: /etc/florence2/tls/tls.key
{{- if .Values.tls.mutual }}
- name: FLORENCE2_GRPC_TLS_CLIENT_AUTHORITY
  value: /etc/florence2/tls/ca.crt
{{- end }}
{{- end }}
{{- if .Values.adminKeySecret.name }}
- name: FLORENCE2_RESTRICTED_PROTOCOL_KEY_FILE
  value: /etc/florence2/admin-key/{{ .Values.adminKeySecret.key }}
{{- end }}
# The server itself downloads nothing; what libraries cache is kept in memory.
- name: HF_HUB_OFFLINE
  value: "1"
- name: HF_HOME
  value: /tmp/huggingface
{{- if eq (int .Values.gpu.count) 0 }}
{{ include "florence2-triton.noGpu" . }}
{{- end }}
{{- with .Values.extraEnvironment }}
{{ toYaml . }}
{{- end }}
{{- end }}
