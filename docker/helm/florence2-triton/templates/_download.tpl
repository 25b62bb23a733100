{{- /* The init containers that fetch the weights, one for each checkpoint. Both kinds skip files that already exist, and
write a file under a temporary name until it is complete, so that pods that share a claim may start at the same time. */}}
{{- define "florence2-triton.downloadContainers" -}}
{{- $checkpoints := include "florence2-triton.checkpoints" . | fromYamlArray -}}
{{- range $number, $checkpoint := $checkpoints }}
{{- $name := ternary (printf "weights-%d" $number) "weights" (gt (len $checkpoints) 1) }}
{{ include "florence2-triton.downloadContainer" (dict "root" $ "name" $name "checkpoint" $checkpoint) }}
{{- end }}
{{- end }}

{{- define "florence2-triton.downloadContainer" -}}
{{- $values := .root.Values -}}
{{- $weights := $values.weights -}}
{{- $folder := include "florence2-triton.folder" . -}}
- name: {{ .name }}
  {{- if eq $weights.source "hub" }}
  image: {{ include "florence2-triton.image" .root }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  # Only the files that serving needs, in either layout, as safetensors or, if there are none, .bin weights.
  command:
    - florence2-server
    - fetch
    - {{ .checkpoint | quote }}
    - {{ $folder }}
  env:
    # On the volume: the cache of the hub's client may be large, and /tmp is memory.
    - name: HF_HOME
      value: /weights/.huggingface
    - name: HF_HUB_DISABLE_TELEMETRY
      value: "1"
    - name: HF_HUB_DISABLE_UPDATE_CHECK
      value: "1"
    {{- if $weights.hub.tokenSecret.name }}
    - name: HF_TOKEN_PATH
      value: /etc/hub-token/{{ $weights.hub.tokenSecret.key }}
    {{- end }}
    {{- if hasKey $values.settings "safetensors_only" }}
    - name: FLORENCE2_SAFETENSORS_ONLY
      value: {{ $values.settings.safetensors_only | quote }}
    {{- end }}
    {{- include "florence2-triton.noGpu" .root | nindent 4 }}
  {{- else }}
  image: {{ $weights.objectStore.image }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  args:
    {{- range $weights.objectStore.arguments }}
    - {{ . | quote }}
    {{- end }}
  env:
    - name: CHECKPOINT_URL
      value: {{ .checkpoint | quote }}
    - name: CHECKPOINT_FOLDER
      value: {{ $folder }}
    - name: HOME
      value: /tmp
    {{- range $name, $value := $weights.objectStore.environment }}
    - name: {{ $name }}
      value: {{ $value | quote }}
    {{- end }}
  {{- end }}
  resources:
    {{- include "florence2-triton.resources" .root | trim | nindent 4 }}
  securityContext:
    {{- include "florence2-triton.containerSecurityContext" .root | nindent 4 }}
  volumeMounts:
    - name: weights
      mountPath: /weights
    - name: download-files
      mountPath: /tmp
    {{- if and (eq $weights.source "hub") $weights.hub.tokenSecret.name }}
    - name: hub-token
      mountPath: /etc/hub-token
      readOnly: true
    {{- end }}
    {{- if and (eq $weights.source "objectStore") $weights.objectStore.secretName }}
    - name: object-store
      mountPath: /etc/object-store
      readOnly: true
    {{- end }}
{{- end }}
