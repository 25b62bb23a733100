{{- /* The init container that fetches the weights. Both kinds leave alone what is there already, and write a file under
another name until it is whole, so that pods which share a claim may start at once. */}}
{{- define "florence2-triton.downloadContainer" -}}
{{- $values := .Values -}}
{{- $weights := $values.weights -}}
- name: weights
  {{- if eq $weights.source "hub" }}
  image: {{ include "florence2-triton.image" . }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  # safetensors and text only: what else a repository has is never run, so it need not be here.
  command:
    - hf
    - download
    - {{ $weights.hub.id | quote }}
    - --revision={{ $weights.hub.revision }}
    - --local-dir={{ include "florence2-triton.checkpoint" . }}
    - --include=*.safetensors
    - --include=*.json
    - --include=*.txt
  env:
    # On the volume: what the hub's client keeps aside may be large, and /tmp is memory.
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
    {{- include "florence2-triton.noGpu" . | nindent 4 }}
  {{- else }}
  image: {{ $weights.objectStore.image }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  args:
    {{- range $weights.objectStore.arguments }}
    - {{ . | quote }}
    {{- end }}
  env:
    - name: CHECKPOINT_URL
      value: {{ $weights.objectStore.url | quote }}
    - name: CHECKPOINT_FOLDER
      value: {{ include "florence2-triton.checkpoint" . }}
    - name: HOME
      value: /tmp
    {{- range $name, $value := $weights.objectStore.environment }}
    - name: {{ $name }}
      value: {{ $value | quote }}
    {{- end }}
  {{- end }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    {{- include "florence2-triton.containerSecurityContext" . | nindent 4 }}
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
