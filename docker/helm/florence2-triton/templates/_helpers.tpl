{{- define "florence2-triton.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- /* 53 characters leave room for the names that are made of it. */}}
{{- define "florence2-triton.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{- define "florence2-triton.selectorLabels" -}}
app.kubernetes.io/name: {{ include "florence2-triton.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "florence2-triton.labels" -}}
{{ include "florence2-triton.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "florence2-triton.serviceAccountName" -}}
{{- $own := ternary (include "florence2-triton.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end }}

{{- define "florence2-triton.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- .Values.image.repository -}}:{{- $tag -}}
{{- with .Values.image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{- define "florence2-triton.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- /* "true" or nothing. */}}
{{- define "florence2-triton.servesHttp" -}}
{{- if kindIs "invalid" .Values.service.http -}}
{{- if not .Values.tls.secretName }}true{{ end -}}
{{- else if .Values.service.http }}true{{ end -}}
{{- end }}

{{- define "florence2-triton.downloads" -}}
{{- if has .Values.weights.source (list "hub" "objectStore") }}true{{ end -}}
{{- end }}

{{- /* Where the checkpoint lies. What is downloaded gets a folder of its own for each version: other pods may be reading
the one before on the same claim. */}}
{{- define "florence2-triton.checkpoint" -}}
{{- $weights := .Values.weights -}}
{{- if eq $weights.source "hub" -}}
/weights/{{ $weights.hub.id | replace "/" "--" }}/{{ $weights.hub.revision }}
{{- else if eq $weights.source "objectStore" -}}
/weights/{{ $weights.objectStore.url | sha256sum | trunc 16 }}
{{- else if eq $weights.source "pvc" -}}
{{ printf "/weights/%s" $weights.pvc.path | trimSuffix "/" }}
{{- else -}}
{{ $weights.baked.path }}
{{- end -}}
{{- end }}

{{- /* The one place where the grace period is made. */}}
{{- define "florence2-triton.terminationGracePeriodSeconds" -}}
{{- $shutdown := .Values.shutdown -}}
{{- $needed := add $shutdown.preStopSeconds $shutdown.exitTimeoutSeconds $shutdown.marginSeconds | int -}}
{{- $wanted := $shutdown.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $wanted -}}
{{- $needed -}}
{{- else if lt (int $wanted) $needed -}}
{{- fail (printf "shutdown.terminationGracePeriodSeconds is %d: requests under way would be killed; preStopSeconds + exitTimeoutSeconds + marginSeconds take %d" (int $wanted) $needed) -}}
{{- else -}}
{{- int $wanted -}}
{{- end -}}
{{- end }}

{{- /* Where NVIDIA's runtime is the default, its images see every GPU of the node unless they are told not to. */}}
{{- define "florence2-triton.noGpu" -}}
- name: NVIDIA_VISIBLE_DEVICES
  value: void
{{- end }}

{{- /* A whole number as one: Helm reads 268435456 as 2.68435456e+08. */}}
{{- define "florence2-triton.scalar" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ printf "%.0f" . }}{{ else }}{{ toString . }}{{ end -}}
{{- end }}

{{- define "florence2-triton.environment" -}}
- name: FLORENCE2_HTTP_ADDRESS
  value: {{ ternary "0.0.0.0" "127.0.0.1" (ne (include "florence2-triton.servesHttp" .) "") }}
- name: FLORENCE2_HTTP_PORT
  value: {{ .Values.ports.http | quote }}
- name: FLORENCE2_GRPC_PORT
  value: {{ .Values.ports.grpc | quote }}
- name: FLORENCE2_METRICS_PORT
  value: {{ .Values.ports.metrics | quote }}
- name: FLORENCE2_EXIT_TIMEOUT_SECONDS
  value: {{ .Values.shutdown.exitTimeoutSeconds | quote }}
# Rather no server than one that computes on the CPU unnoticed.
- name: FLORENCE2_REQUIRE_GPU
  value: {{ ternary "1" "0" (gt (int .Values.gpu.count) 0) | quote }}
{{- with include "florence2-triton.checkpoint" . }}
- name: FLORENCE2_CHECKPOINT
  value: {{ . | quote }}
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
# The server itself downloads nothing; what libraries want to keep lies in memory.
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

{{- /* The command of a probe, through HTTP, which wants no certificate inside the pod. Two seconds of its time are for
the start of Python. */}}
{{- define "florence2-triton.health" -}}
{{- $values := .root.Values -}}
- florence2
- health
{{- if .ready }}
- --ready
{{- end }}
- --url=http://127.0.0.1:{{ $values.ports.http }}
- --timeout={{ sub .timeoutSeconds 2 }}
{{- end }}

{{- /* The load of each pod in PromQL (values.yaml, autoscaling, says why this). `matchers` and `by` are the caller's. */}}
{{- define "florence2-triton.load" -}}
(sum by ({{ .by }}) (nv_inference_pending_request_count{model="florence2",{{ .matchers }}}) + sum by ({{ .by }}) (florence2_slots_in_use{ {{- .matchers -}} })) / sum by ({{ .by }}) (florence2_slots{ {{- .matchers -}} })
{{- end }}
