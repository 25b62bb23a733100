{{- /* The peers that may send requests, as a YAML list: those of the values, and those that other values imply. */}}
{{- define "florence2-triton.callers" -}}
{{- $values := .Values -}}
{{- $callers := $values.networkPolicy.clients -}}
{{- $gateway := $values.gateway -}}
{{- $ingress := $values.ingress -}}
{{- $routes := list (list $gateway (concat $gateway.hostnames $gateway.httpHostnames)) (list $ingress (list $ingress.host $ingress.httpHost | compact)) -}}
{{- range $routes -}}
{{- $route := first . -}}
{{- if and $route.enabled (last .) -}}
{{- $labels := dict "kubernetes.io/metadata.name" $route.namespace -}}
{{- $callers = append $callers (dict "namespaceSelector" (dict "matchLabels" $labels)) -}}
{{- end -}}
{{- end -}}
{{- range $values.service.loadBalancerSourceRanges -}}
{{- $callers = append $callers (dict "ipBlock" (dict "cidr" .)) -}}
{{- end -}}
{{- if $values.web.enabled -}}
{{- $labels := include "florence2-triton.webSelectorLabels" . | fromYaml -}}
{{- $callers = append $callers (dict "podSelector" (dict "matchLabels" $labels)) -}}
{{- end -}}
{{- if include "florence2-triton.tests" . -}}
{{- $labels := include "florence2-triton.testLabels" . | fromYaml -}}
{{- $callers = append $callers (dict "podSelector" (dict "matchLabels" $labels)) -}}
{{- end -}}
{{ $callers | uniq | toYaml }}
{{- end }}

{{- /* Whether `helm test` has a pod: "true" or nothing. */}}
{{- define "florence2-triton.tests" -}}
{{- if and .Values.test.enabled (or (not .Values.tls.mutual) .Values.test.clientSecretName) }}true{{ end -}}
{{- end }}

{{- /* Not those of the server, which the Services select. */}}
{{- define "florence2-triton.testLabels" -}}
app.kubernetes.io/name: {{ include "florence2-triton.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
