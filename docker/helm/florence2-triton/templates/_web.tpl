{{- /* The web server, `florence2 web`: its own pods, which the server's Services do not select. */}}
{{- define "florence2-triton.webName" -}}
{{ include "florence2-triton.fullname" . }}-web
{{- end }}

{{- define "florence2-triton.webSelectorLabels" -}}
app.kubernetes.io/name: {{ include "florence2-triton.name" . | trunc 59 | trimSuffix "-" }}-web
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "florence2-triton.webLabels" -}}
{{ include "florence2-triton.webSelectorLabels" . }}
app.kubernetes.io/component: web
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "florence2-triton.webImage" -}}
{{- $image := .Values.web.image -}}
{{- $image.repository -}}:{{- default .Chart.AppVersion $image.tag -}}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{- /* The peers that may send it requests, as a YAML list: those of the values, and those that other values imply. */}}
{{- define "florence2-triton.webCallers" -}}
{{- $values := .Values -}}
{{- $callers := $values.web.clients -}}
{{- $routes := list (list $values.gateway $values.gateway.webHostnames) (list $values.ingress $values.ingress.webHost) -}}
{{- range $routes -}}
{{- $route := first . -}}
{{- if and $route.enabled (last .) -}}
{{- $labels := dict "kubernetes.io/metadata.name" $route.namespace -}}
{{- $callers = append $callers (dict "namespaceSelector" (dict "matchLabels" $labels)) -}}
{{- end -}}
{{- end -}}
{{ $callers | uniq | toYaml }}
{{- end }}

{{- /* The arguments of `florence2 web`. The headless Service names every ready pod of the server. */}}
{{- define "florence2-triton.webArguments" -}}
{{- $values := .Values -}}
{{- $web := $values.web -}}
{{- $name := include "florence2-triton.fullname" . -}}
- "--host={{ $values.address }}"
- "--port={{ $web.port }}"
- "--url=dns:///{{ $name }}-headless.{{ .Release.Namespace }}.svc:{{ $values.ports.grpc }}"
{{- range $values.models | default (list (dict "name" "florence2")) }}
- "--model={{ .name }}"
{{- end }}
- "--timeout={{ $web.timeoutSeconds }}"
- "--drain={{ $web.timeoutSeconds }}"
- "--concurrency={{ $web.concurrency }}"
- "--max-body-bytes={{ include "florence2-triton.scalar" $web.maxBodyBytes }}"
- "--max-pixels={{ include "florence2-triton.scalar" $web.maxPixels }}"
{{- range $web.allowedOrigins }}
- "--allow-origin={{ . }}"
{{- end }}
{{- if $web.apiKeys.secretName }}
- "--api-keys=/etc/florence2/api-keys/{{ $web.apiKeys.key }}"
{{- end }}
{{- if $values.tls.secretName }}
- "--tls-root-certificates=/etc/florence2/tls/ca.crt"
- "--tls-server-name={{ default (printf "%s.%s.svc" $name .Release.Namespace) $web.tlsServerName }}"
{{- end }}
{{- if $values.tls.mutual }}
- "--tls-private-key=/etc/florence2/client/tls.key"
- "--tls-certificate-chain=/etc/florence2/client/tls.crt"
{{- end }}
{{- with $web.extraArguments }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Requests and limits. If the values give no limit of memory, it is that of the process, and six times the largest
body for each request in flight: JSON, its base64 text and the decoded image are in memory at the same time. */}}
{{- define "florence2-triton.webResources" -}}
{{- $web := .Values.web -}}
{{- $bodies := divf (mulf $web.concurrency $web.maxBodyBytes 6) 1048576 | ceil | int -}}
{{- $limits := merge (dict) $web.resources.limits (dict "memory" (printf "%dMi" (add 256 $bodies))) -}}
{{ dict "requests" $web.resources.requests "limits" $limits | toYaml }}
{{- end }}
