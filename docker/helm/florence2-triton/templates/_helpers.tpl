{{- define "florence2-triton.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- /* 53 characters leave room for the suffixes of names derived from it. */}}
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

{{- /* The user's containers; those without a security context get the server's. */}}
{{- define "florence2-triton.restricted" -}}
{{- $security := dict "securityContext" (include "florence2-triton.containerSecurityContext" . | fromYaml) -}}
{{- range . }}
- {{ ternary . (merge (deepCopy .) $security) (hasKey . "securityContext") | toYaml | nindent 2 | trim }}
{{- end }}
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

{{- /* The grace period, computed here only. */}}
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

{{- /* The label `job` of the release's metrics, by which the alerts and the dashboard select this project's. */}}
{{- define "florence2-triton.job" -}}
{{- $name := include "florence2-triton.fullname" . -}}
{{ ternary $name (printf "florence2-%s" $name) (contains "florence2" $name) }}
{{- end }}

{{- /* If NVIDIA's runtime is the default, its images see every GPU of the node unless this is set. */}}
{{- define "florence2-triton.noGpu" -}}
- name: NVIDIA_VISIBLE_DEVICES
  value: void
{{- end }}

{{- /* The load of each pod in PromQL (values.yaml explains it at `autoscaling`), with the caller's `matchers` and `by`. */}}
{{- define "florence2-triton.load" -}}
(sum by ({{ .by }}) (florence2_waiting_requests{ {{- .matchers -}} }) + sum by ({{ .by }}) (florence2_slots_in_use{ {{- .matchers -}} })) / sum by ({{ .by }}) (florence2_slots{ {{- .matchers -}} })
{{- end }}
