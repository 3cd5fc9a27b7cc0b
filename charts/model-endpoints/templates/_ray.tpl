{{/* Templates that Ray's head and workers share. */}}

{{/* Environment of a pod's container: a dict of context and component. */}}
{{- define "model-endpoints.rayEnv" -}}
{{- $component := .component -}}
{{- with .context -}}
{{- $given := list -}}
{{- range .Values.ray.env }}{{ $given = append $given .name }}{{ end -}}
{{/* HAProxy with our rules in front of the replicas, and Ray's own settings for throughput. By default, Ray's workers have
the lowest priority, and all threads of a model then wait for the one that another program has preempted. */}}
{{- $defaults := dict
  "RAY_SERVE_ENABLE_HA_PROXY" "1"
  "RAY_SERVE_HAPROXY_BINARY_PATH" "/opt/model-endpoints/bin/model-endpoints-haproxy"
  "RAY_SERVE_HAPROXY_NBTHREAD" "1"
  "RAY_SERVE_THROUGHPUT_OPTIMIZED" "1"
  "RAY_SERVE_USE_GRPC_BY_DEFAULT" "1"
  "RAY_SERVE_PROXY_USE_GRPC" "1"
  "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S" "5"
  "RAY_SERVE_LOG_TO_STDERR" "1"
  "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO" "1"
  "RAY_USAGE_STATS_ENABLED" "0"
  "RAY_worker_niceness" "0"
  "MODEL_ENDPOINTS_FORK_WORKERS" (ternary (ternary "serve" "models" (eq $component "head")) "off" .Values.ray.forkWorkers)
  "TOKENIZERS_PARALLELISM" "false"
  "HOME" "/home/ray"
  "HF_HOME" "/cache/huggingface"
-}}
{{- if .Values.hub.endpoint }}{{ $_ := set $defaults "HF_ENDPOINT" .Values.hub.endpoint }}{{ end -}}
{{- if .Values.hub.offline }}{{ $_ := set $defaults "HF_HUB_OFFLINE" "1" }}{{ end -}}
{{- if .Values.hub.tokenSecret.name }}{{ $_ := set $defaults "HF_TOKEN_PATH" "/var/run/secrets/hub/token" }}{{ end -}}
{{- range $name, $value := $defaults }}
{{- if not (has $name $given) }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- with .Values.ray.env }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "model-endpoints.rayVolumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/ray}
- {name: cache, mountPath: /cache}
{{- if .Values.hub.tokenSecret.name }}
- {name: hub-token, mountPath: /var/run/secrets/hub, readOnly: true}
{{- end }}
{{- range .Values.modelVolumes }}
- {name: {{ printf "models-%s" . }}, mountPath: /volumes/{{ . }}, readOnly: true}
{{- end }}
{{- with .Values.ray.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "model-endpoints.rayVolumes" -}}
- {name: tmp, emptyDir: {}}
- {name: home, emptyDir: {}}
{{- if .Values.hub.cacheClaim }}
- {name: cache, persistentVolumeClaim: {claimName: {{ .Values.hub.cacheClaim }}}}
{{- else }}
- {name: cache, emptyDir: {}}
{{- end }}
{{- with .Values.hub.tokenSecret }}
{{- if .name }}
- {name: hub-token, secret: {secretName: {{ .name }}, items: [{key: {{ .key }}, path: token}]}}
{{- end }}
{{- end }}
{{- range .Values.modelVolumes }}
- {name: {{ printf "models-%s" . }}, persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}}
{{- end }}
{{- with .Values.ray.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
A quantity in Kubernetes' canonical form. KubeRay writes the worker groups back in that form. A quantity in another form
would then belong to KubeRay's field manager, and the next upgrade would be rejected.
*/}}
{{- define "model-endpoints.quantity" -}}
{{/* Numbers of a values file are floats, and a large one would be written with an exponent. */}}
{{- $text := kindIs "float64" . | ternary (int64 .) . | toString -}}
{{- $larger := dict "Ki" "Mi" "Mi" "Gi" "Gi" "Ti" -}}
{{- range list "Ki" "Mi" "Gi" -}}
{{- if hasSuffix . $text -}}
{{- $number := trimSuffix . $text | int64 -}}
{{- if and (gt $number 0) (eq (mod $number 1024) 0) -}}
{{- $text = printf "%d%s" (div $number 1024) (get $larger .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range list (list "m" "") (list "" "k") (list "k" "M") (list "M" "G") (list "G" "T") -}}
{{- $suffix := first . -}}
{{- if regexMatch (printf "^[0-9]+%s$" $suffix) $text -}}
{{- $number := trimSuffix $suffix $text | int64 -}}
{{- if and (gt $number 0) (eq (mod $number 1000) 0) -}}
{{- $text = printf "%d%s" (div $number 1000) (last .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{- define "model-endpoints.resources" -}}
{{- range $kind, $quantities := . }}
{{ $kind }}:
  {{- range $resource, $quantity := $quantities }}
  {{ $resource }}: {{ include "model-endpoints.quantity" $quantity | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Template of a pod: a dict of context, name, component, resources, ports, nodeSelector, tolerations, runtimeClassName. */}}
{{- define "model-endpoints.rayPod" -}}
metadata:
  labels:
    {{- include "model-endpoints.rayLabels" .context | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  {{- with .context.Values.ray.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- /* Autoscaler v2 replaces pods. A pod that restarts its container would be a node that it does not know. */}}
  restartPolicy: Never
  {{- if eq .component "worker" }}
  automountServiceAccountToken: false
  {{- end }}
  securityContext:
    runAsUser: 1000
    runAsGroup: 1000
    fsGroup: 1000
    runAsNonRoot: true
    seccompProfile: {type: RuntimeDefault}
  {{- with .context.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .runtimeClassName }}
  runtimeClassName: {{ toYaml . }}
  {{- end }}
  {{- with .nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "model-endpoints.image" (dict "image" .context.Values.image "value" "image" "defaultTag" "") }}
      imagePullPolicy: {{ .context.Values.image.pullPolicy }}
      securityContext:
        {{- include "model-endpoints.securityContext" .context | nindent 8 }}
      env:
        {{- include "model-endpoints.rayEnv" . | nindent 8 }}
      {{- with .ports }}
      ports:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- include "model-endpoints.resources" .resources | trim | nindent 8 }}
      volumeMounts:
        {{- include "model-endpoints.rayVolumeMounts" .context | nindent 8 }}
  volumes:
    {{- include "model-endpoints.rayVolumes" .context | nindent 4 }}
{{- end -}}
