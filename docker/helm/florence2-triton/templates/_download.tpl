{{- /* The init container that fetches the weights. Both kinds leave alone what is there already, and write a file under
another name until it is whole, so that pods which share a claim may start at once. */}}
{{- define "florence2-triton.downloadContainer" -}}
{{- $values := .Values -}}
{{- $weights := $values.weights -}}
- name: weights
  {{- if eq $weights.source "hub" }}
  image: {{ include "florence2-triton.image" . }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  # Only the files that serving needs, in either layout, as safetensors or, if there are none, .bin weights.
  command:
    - python
    - /opt/florence2/model_repository/serve.py
    - fetch
    - {{ printf "%s@%s" $weights.hub.id $weights.hub.revision | quote }}
    - {{ include "florence2-triton.checkpoint" . }}
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
    {{- if hasKey $values.settings "safetensors_only" }}
    - name: FLORENCE2_SAFETENSORS_ONLY
      value: {{ $values.settings.safetensors_only | quote }}
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
