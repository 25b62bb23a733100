{{- /* A size in values.yaml, in MiB. */}}
{{- define "florence2-triton.mebibytes" -}}
{{- if hasSuffix "Gi" . }}{{ trimSuffix "Gi" . | int64 | mul 1024 }}{{ else }}{{ trimSuffix "Mi" . | int64 }}{{ end -}}
{{- end }}

{{- /* Engines of a model: one per GPU, or one on the CPU; each has its own queue and its own part of /dev/shm. */}}
{{- define "florence2-triton.instances" -}}
{{ max 1 (int .Values.gpu.count) }}
{{- end }}

{{- /* The size of /dev/shm in MiB. An instance is handed one request at a time, of at most 16 images; NAME_stream one
image. As base64 text with line breaks, an image takes 11/8 of its size. Triton starts with 16 MiB for each instance, of
NAME_stream and NAME_health too. If a request does not fit into what is free, Triton adds the size of the request, and
never returns memory: so an instance needs at most twice the size of its largest request. */}}
{{- define "florence2-triton.sharedMemory" -}}
{{- if .Values.sharedMemory -}}
{{ include "florence2-triton.mebibytes" .Values.sharedMemory }}
{{- else -}}
{{- $instances := include "florence2-triton.instances" . | int -}}
{{- $needed := 0 -}}
{{- range include "florence2-triton.settingsOfModels" . | fromYamlArray -}}
{{- $image := divf (mulf .max_image_bytes 1.375) 1048576 | ceil | int -}}
{{- $needed = add $needed (mul 16 (add $instances 2)) (mul 2 $image (add (mul 16 $instances) 1)) -}}
{{- end -}}
{{ mul 256 (divf $needed 256 | ceil | int) }}
{{- end -}}
{{- end }}

{{- /* The container's memory in MiB. */}}
{{- define "florence2-triton.memory" -}}
{{- $models := include "florence2-triton.settingsOfModels" . | fromYamlArray -}}
{{- $queues := 0.0 -}}
{{- range $models -}}
{{- $queues = addf $queues (mulf .queue_bytes (include "florence2-triton.instances" $ | int)) -}}
{{- end -}}
{{- $processes := include "florence2-triton.mebibytes" .Values.processMemory | int64 | mul (len $models) -}}
{{- $files := include "florence2-triton.mebibytes" .Values.temporaryFiles -}}
{{ add $processes (divf $queues 1048576 | ceil | int) (include "florence2-triton.sharedMemory" .) $files }}
{{- end }}

{{- /* Requests and limits, without the GPU. */}}
{{- define "florence2-triton.resources" -}}
{{- $memory := dict "memory" (printf "%sMi" (include "florence2-triton.memory" .)) -}}
{{- range $kind := list "requests" "limits" }}
{{ $kind }}:
  {{- merge (dict) (get $.Values.resources $kind) $memory | toYaml | nindent 2 }}
{{- end }}
{{- end }}
