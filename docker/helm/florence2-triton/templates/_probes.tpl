{{- /* How a probe checks health: over HTTP, on the port that says how the engines are. Without that port, by the server's
own command, which reads from the container's environment where the server listens and what it serves. Two seconds of
the probe's timeout are for the start of Python. */}}
{{- define "florence2-triton.health" -}}
{{- if .root.Values.ports.health -}}
httpGet:
  path: {{ .path }}
  port: health
{{- else -}}
exec:
  command:
    - florence2-server
    - health
    {{- if hasPrefix "/ready" .path }}
    - --ready
    {{- end }}
    - --timeout={{ sub .timeoutSeconds 2 }}
{{- end }}
{{- end }}
