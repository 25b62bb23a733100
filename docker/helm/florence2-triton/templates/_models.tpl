{{- /* The checkpoint of a release without `models`, as `weights.source` needs it: `owner/name@commit`, a URL or a
folder. */}}
{{- define "florence2-triton.checkpoint" -}}
{{- $weights := .Values.weights -}}
{{- if eq $weights.source "hub" -}}
{{ printf "%s@%s" $weights.hub.id $weights.hub.revision }}
{{- else if eq $weights.source "objectStore" -}}
{{ $weights.objectStore.url }}
{{- else if eq $weights.source "pvc" -}}
{{ $weights.pvc.path }}
{{- else -}}
{{ $weights.baked.path }}
{{- end -}}
{{- end }}

{{- /* The folder of a checkpoint. Each downloaded version has its own: other pods may be reading the previous one from
the same claim. */}}
{{- define "florence2-triton.folder" -}}
{{- $source := .root.Values.weights.source -}}
{{- if eq $source "hub" -}}
/weights/{{ .checkpoint | replace "/" "--" | replace "@" "/" }}
{{- else if eq $source "objectStore" -}}
/weights/{{ .checkpoint | sha256sum | trunc 16 }}
{{- else if eq $source "pvc" -}}
{{ printf "/weights/%s" .checkpoint | trimSuffix "/" }}
{{- else -}}
{{ .checkpoint }}
{{- end -}}
{{- end }}

{{- /* The distinct checkpoints, as a YAML list. */}}
{{- define "florence2-triton.checkpoints" -}}
{{- $found := list -}}
{{- range .Values.models -}}
{{- $found = append $found .checkpoint -}}
{{- end -}}
{{- $found | default (list (include "florence2-triton.checkpoint" .)) | uniq | toYaml -}}
{{- end }}

{{- /* The settings of each model, as a YAML list of maps: its own, then the release's. */}}
{{- define "florence2-triton.settingsOfModels" -}}
{{- range .Values.models | default (list dict) }}
- {{ merge (dict) (.settings | default dict) $.Values.settings | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}

{{- /* The longest time that an engine may take to start, and a minute for Triton before and after it. */}}
{{- define "florence2-triton.startSeconds" -}}
{{- $seconds := 0 -}}
{{- range include "florence2-triton.settingsOfModels" . | fromYamlArray -}}
{{- $seconds = max $seconds (int .start_seconds) -}}
{{- end -}}
{{ add $seconds 60 }}
{{- end }}

{{- /* How long a rollout may take to make progress: the start of an engine, and the download before it. */}}
{{- define "florence2-triton.progressSeconds" -}}
{{ add (include "florence2-triton.startSeconds" . | int) (ternary 1800 300 (ne (include "florence2-triton.downloads" .) "")) }}
{{- end }}

{{- /* "true" if there is a volume of adapters, or nothing. */}}
{{- define "florence2-triton.servesAdapters" -}}
{{- if or .Values.adapters.claimName .Values.adapters.volume }}true{{ end -}}
{{- end }}

{{- /* A folder of adapters, from its path on their volume. */}}
{{- define "florence2-triton.adapterFolder" -}}
{{ printf "/adapters/%s" . | trimSuffix "/" }}
{{- end }}

{{- /* The variables that say what to serve. */}}
{{- define "florence2-triton.served" -}}
{{- if .Values.models -}}
{{- $models := list -}}
{{- $settings := list -}}
{{- range $model := .Values.models -}}
{{- $folder := include "florence2-triton.folder" (dict "root" $ "checkpoint" $model.checkpoint) -}}
{{- $models = append $models (printf "%s=%s" $model.name $folder) -}}
{{- range $name, $value := $model.settings -}}
{{- $settings = append $settings (printf "%s.%s=%s" $model.name $name (include "florence2-triton.scalar" $value)) -}}
{{- end -}}
{{- with $model.adapters -}}
{{- $settings = append $settings (printf "%s.adapters=%s" $model.name (include "florence2-triton.adapterFolder" .)) -}}
{{- end -}}
{{- end -}}
- name: FLORENCE2_MODELS
  value: {{ join " " $models | quote }}
{{- with $settings }}
- name: FLORENCE2_MODEL_SETTINGS
  value: {{ join " " . | quote }}
{{- end }}
{{- else -}}
{{- with include "florence2-triton.folder" (dict "root" . "checkpoint" (include "florence2-triton.checkpoint" .)) -}}
- name: FLORENCE2_CHECKPOINT
  value: {{ . | quote }}
{{- end }}
{{- if include "florence2-triton.servesAdapters" . }}
- name: FLORENCE2_ADAPTERS
  value: {{ include "florence2-triton.adapterFolder" .Values.adapters.path | quote }}
{{- end }}
{{- end }}
{{- end }}
