{{- /* Combinations of values that cannot work, and that a JSON schema cannot compare. */}}
{{- define "florence2-triton.checks" -}}
{{- include "florence2-triton.checkNumbers" . -}}
{{- include "florence2-triton.checkNetwork" . -}}
{{- include "florence2-triton.checkWeb" . -}}
{{- include "florence2-triton.checkModels" . -}}
{{- include "florence2-triton.checkAdapters" . -}}
{{- include "florence2-triton.checkProbes" . -}}
{{- end }}

{{- define "florence2-triton.checkNumbers" -}}
{{- with .Values.autoscaling -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas is %d, more than autoscaling.maxReplicas, %d" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- $pods := ternary .Values.replicas .Values.autoscaling.minReplicas (eq .Values.autoscaling.by "none") | int -}}
{{- $evicted := .Values.podDisruptionBudget.maxUnavailable -}}
{{- if and .Values.podDisruptionBudget.enabled (not (kindIs "string" $evicted)) (gt (int $evicted) 1) (ge (int $evicted) $pods) -}}
{{- fail (printf "podDisruptionBudget.maxUnavailable is %d, which would let all of %d pods be evicted at once" (int $evicted) $pods) -}}
{{- end -}}
{{- range $name, $probe := pick .Values.probes "readiness" "liveness" -}}
{{- if gt (int $probe.timeoutSeconds) (int $probe.periodSeconds) -}}
{{- fail (printf "probes.%s.timeoutSeconds is %d, more than its periodSeconds, %d" $name (int $probe.timeoutSeconds) (int $probe.periodSeconds)) -}}
{{- end -}}
{{- end -}}
{{- $names := dict -}}
{{- range $name, $port := .Values.ports -}}
{{- $number := $port | int | toString -}}
{{- if ne $number "0" -}}
{{- with get $names $number -}}
{{- fail (printf "ports.%s and ports.%s are both %s" . $name $number) -}}
{{- end -}}
{{- $_ := set $names $number $name -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "florence2-triton.checkNetwork" -}}
{{- $values := .Values -}}
{{- if and $values.service.http $values.tls.secretName -}}
{{- fail "service.http is true with tls.secretName: Triton's HTTP has no TLS, and would be open to everyone whom gRPC refuses" -}}
{{- end -}}
{{- if and $values.gateway.enabled $values.gateway.hostnames $values.tls.secretName -}}
{{- fail "gateway.hostnames with tls.secretName: the route leads to a Service without TLS; let the gateway terminate TLS" -}}
{{- end -}}
{{- $servesHttp := include "florence2-triton.servesHttp" . -}}
{{- if and $values.gateway.enabled $values.gateway.httpHostnames (not $servesHttp) -}}
{{- fail "gateway.httpHostnames, but HTTP is not served: see service.http" -}}
{{- end -}}
{{- range $values.gateway.httpHostnames -}}
{{- if has . $values.gateway.hostnames -}}
{{- fail (printf "gateway.httpHostnames has %s, a host name of gRPC: a Gateway accepts only one kind of route for a host name" .) -}}
{{- end -}}
{{- end -}}
{{- if and $values.ingress.enabled $values.ingress.httpHost (not $servesHttp) -}}
{{- fail "ingress.httpHost, but HTTP is not served: see service.http" -}}
{{- end -}}
{{- if and $values.ingress.enabled $values.ingress.host (eq $values.ingress.host $values.ingress.httpHost) -}}
{{- fail (printf "ingress.httpHost is %s, the host name of gRPC" $values.ingress.host) -}}
{{- end -}}
{{- if and (ne $values.service.type "ClusterIP") $values.networkPolicy.enabled (not (contains "ipBlock" (include "florence2-triton.callers" . ))) -}}
{{- fail (printf "service.type is %s, but networkPolicy.clients has no ipBlock: nobody outside the cluster could connect" $values.service.type) -}}
{{- end -}}
{{- end }}

{{- define "florence2-triton.checkWeb" -}}
{{- $values := .Values -}}
{{- $gateway := $values.gateway -}}
{{- $ingress := $values.ingress -}}
{{- if and $values.web.enabled $values.tls.mutual (not $values.web.clientSecretName) -}}
{{- fail "web.clientSecretName is empty with tls.mutual: the web server needs a client's certificate" -}}
{{- end -}}
{{- range $name, $hosts := dict "gateway.webHostnames" (ternary $gateway.webHostnames list $gateway.enabled) "ingress.webHost" (ternary (list $ingress.webHost) list $ingress.enabled | compact) -}}
{{- if and $hosts (not $values.web.enabled) -}}
{{- fail (printf "%s, but web.enabled is false" $name) -}}
{{- end -}}
{{- end -}}
{{- range $gateway.webHostnames -}}
{{- if has . (concat $gateway.hostnames $gateway.httpHostnames) -}}
{{- fail (printf "gateway.webHostnames has %s, a host name of gRPC or HTTP" .) -}}
{{- end -}}
{{- end -}}
{{- if and $ingress.webHost (has $ingress.webHost (list $ingress.host $ingress.httpHost)) -}}
{{- fail (printf "ingress.webHost is %s, the host name of gRPC or HTTP" $ingress.webHost) -}}
{{- end -}}
{{- end }}

{{- define "florence2-triton.checkModels" -}}
{{- $names := list -}}
{{- range .Values.models -}}
{{- if has .name $names -}}
{{- fail (printf "models has %s twice" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end }}

{{- define "florence2-triton.checkAdapters" -}}
{{- $values := .Values -}}
{{- $hasVolume := include "florence2-triton.servesAdapters" . -}}
{{- if and $values.adapters.claimName $values.adapters.volume -}}
{{- fail "adapters.claimName and adapters.volume: both say where the adapters are" -}}
{{- end -}}
{{- if and $values.adapters.path (not $hasVolume) -}}
{{- fail (printf "adapters.path is %s, but there is no volume: give adapters.claimName or adapters.volume" $values.adapters.path) -}}
{{- end -}}
{{- if and $values.adapters.path $values.models -}}
{{- fail (printf "adapters.path is %s with models: an adapter fits one checkpoint, so each model names its own folder" $values.adapters.path) -}}
{{- end -}}
{{- if and $hasVolume $values.settings.adapters -}}
{{- fail (printf "settings.adapters is %s, but the volume of adapters says which are served" $values.settings.adapters) -}}
{{- end -}}
{{- include "florence2-triton.checkAdapterSources" (dict "name" "settings.adapters" "text" $values.settings.adapters) -}}
{{- $hasAdapters := list -}}
{{- range $model := $values.models -}}
{{- $own := get ($model.settings | default dict) "adapters" -}}
{{- if and $model.adapters (not $hasVolume) -}}
{{- fail (printf "model %s has the adapters %s, but there is no volume: give adapters.claimName or adapters.volume" $model.name $model.adapters) -}}
{{- end -}}
{{- if and $model.adapters $own -}}
{{- fail (printf "model %s has both adapters, %s, and settings.adapters, %s" $model.name $model.adapters $own) -}}
{{- end -}}
{{- include "florence2-triton.checkAdapterSources" (dict "name" (printf "settings.adapters of model %s" $model.name) "text" $own) -}}
{{- $hasAdapters = concat $hasAdapters (compact (list $model.adapters $own)) -}}
{{- end -}}
{{- if and $hasVolume $values.models (not $hasAdapters) -}}
{{- fail "there is a volume of adapters, but no model names its folder: give models[].adapters" -}}
{{- end -}}
{{- end }}

{{- /* A source is a folder: the server downloads nothing, so it cannot get an adapter from the hub. */}}
{{- define "florence2-triton.checkAdapterSources" -}}
{{- $name := .name -}}
{{- range compact (splitList "," (.text | default "")) -}}
{{- $source := regexReplaceAll "^[^/=]*=" . "" -}}
{{- if not (hasPrefix "/" $source) -}}
{{- fail (printf "%s has %s, which is not the path of a folder: pods download no adapters; put it on a volume" $name $source) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* Without a model of that name the path has status 404, and the pod would be restarted forever. */}}
{{- define "florence2-triton.checkProbes" -}}
{{- $names := list -}}
{{- range .Values.models | default (list (dict "name" "florence2")) -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- range $value := list "livenessPath" "readinessPath" -}}
{{- $path := get $.Values.probes $value -}}
{{- $model := regexReplaceAll "^/[a-z]+/?" $path "" -}}
{{- if and $model (not (has $model $names)) -}}
{{- fail (printf "probes.%s is %s, but no model has that name: there is %s" $value $path (join ", " $names)) -}}
{{- end -}}
{{- if and $model (not $.Values.ports.health) -}}
{{- fail (printf "probes.%s is %s with ports.health 0: only that port knows models one by one" $value $path) -}}
{{- end -}}
{{- end -}}
{{- end }}
