{{/* The cluster of the RayService, and how the overlays of the values are laid over it. */}}

{{/* A map (base) with another one (overlay) laid over it, as JSON: maps are merged deeply, anything else replaces. */}}
{{- define "model-endpoints.merged" -}}
{{- $result := deepCopy .base -}}
{{- range $key, $value := .overlay -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $result $key)) -}}
{{- $_ := set $result $key (include "model-endpoints.merged" (dict "base" (get $result $key) "overlay" $value) | fromJson) -}}
{{- else -}}
{{- $_ := set $result $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $result -}}
{{- end -}}

{{/*
YAML with an overlay laid over it: a dict of text, overlay, value (the name of the overlay) and owned (what it may not have,
with the reason). The text stays as it is if there is no overlay.
*/}}
{{- define "model-endpoints.overlaid" -}}
{{- range $path, $reason := .owned -}}
{{- $found := dict "there" true "at" $.overlay -}}
{{- range splitList "|" $path -}}
{{- $there := and $found.there (kindIs "map" $found.at) -}}
{{- $there = and $there (hasKey (ternary $found.at dict $there) .) -}}
{{- $found = dict "there" $there "at" (ternary (get (ternary $found.at dict $there) .) "" $there) -}}
{{- end -}}
{{- if $found.there -}}
{{- fail (printf "%s cannot set %s: %s" $.value (replace "|" "." $path) $reason) -}}
{{- end -}}
{{- end -}}
{{- if .overlay -}}
{{- include "model-endpoints.merged" (dict "base" (fromYaml .text) "overlay" .overlay) | fromJson | toYaml -}}
{{- else -}}
{{- .text -}}
{{- end -}}
{{- end -}}

{{/* Worker group of a profile: a dict of context and profile. */}}
{{- define "model-endpoints.workerGroup" -}}
{{- $context := .context -}}
{{- with .profile -}}
{{- $limits := dict "memory" .memory }}
{{- if .accelerators }}
{{- $_ := set $limits (default "nvidia.com/gpu" .acceleratorResource) .accelerators }}
{{- end }}
{{- $requests := merge (deepCopy (default dict .requests)) (dict "cpu" .cpus "memory" .memory) }}
groupName: {{ .name }}
labels: {modelendpoint.dev/profile: {{ .name }}}
replicas: {{ default 0 .minWorkers }}
minReplicas: {{ default 0 .minWorkers }}
maxReplicas: {{ default 1 .maxWorkers }}
{{- /* KubeRay writes these two values back; without them, Helm would report a conflict with KubeRay. */}}
numOfHosts: 1
scaleStrategy: {}
rayStartParams:
  num-cpus: {{ .cpus | quote }}
  {{- if hasKey . "numGpus" }}
  num-gpus: {{ .numGpus | quote }}
  {{- end }}
  object-store-memory: "100000000"
template:
  {{- include "model-endpoints.rayPod" (dict
    "context" $context
    "name" "ray-worker"
    "component" "worker"
    "resources" (dict "requests" $requests "limits" $limits)
    "own" .
    "ports" (list
      (dict "containerPort" 8000 "name" "serve")
      (dict "containerPort" 9000 "name" "serve-grpc")
      (dict "containerPort" 8080 "name" "metrics")
      (dict "containerPort" 9101 "name" "haproxy-metrics"))
  ) | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Where the head keeps its state. The namespace in the store is the Ray cluster's own, so an upgrade shares nothing. */}}
{{- define "model-endpoints.faultTolerance" -}}
{{- with .Values.head.faultTolerance -}}
{{- if eq .store "valkey" -}}
gcsFaultToleranceOptions:
  redisAddress: {{ include "model-endpoints.headStore" $ }}:6379
  {{- if $.Values.auth.enabled }}
  redisPassword:
    valueFrom: {secretKeyRef: {name: {{ include "model-endpoints.authSecret" $ }}, key: auth_token}}
  {{- end }}
{{- else if eq .store "redis" -}}
gcsFaultToleranceOptions:
  redisAddress: {{ required "head.faultTolerance.redis.address is empty: give the address of your store, for example redis.data.svc:6379" .redis.address }}
  {{- with .redis.username }}
  redisUsername: {value: {{ toYaml . }}}
  {{- end }}
  {{- with .redis.passwordSecret }}
  {{- if .name }}
  redisPassword:
    valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
  {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "model-endpoints.rayCluster" -}}
rayVersion: {{ .Values.ray.version }}
{{ include "model-endpoints.faultTolerance" . }}
{{- if .Values.auth.enabled }}
authOptions:
  mode: token
  secretName: {{ include "model-endpoints.authSecret" . }}
{{- end }}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ int64 .Values.autoscaler.idleTimeoutSeconds }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  securityContext:
    {{- include "model-endpoints.securityContext" . | nindent 4 }}
  resources:
    {{- include "model-endpoints.resources" .Values.autoscaler.resources | trim | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: home, mountPath: /home/ray}
    - {name: api-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
headGroupSpec:
  rayStartParams:
    dashboard-host: 0.0.0.0
    num-cpus: {{ .Values.head.cpus | quote }}
    {{- /* The object store is small, because no process passes large objects to another. */}}
    object-store-memory: "100000000"
  template:
    {{- include "model-endpoints.rayPod" (dict
      "context" .
      "name" "ray-head"
      "component" "head"
      "resources" .Values.head.resources
      "own" .Values.head
      "ports" (list
        (dict "containerPort" 6379 "name" "gcs-server")
        (dict "containerPort" 8265 "name" "dashboard")
        (dict "containerPort" 10001 "name" "client")
        (dict "containerPort" 8000 "name" "serve")
        (dict "containerPort" 9000 "name" "serve-grpc")
        (dict "containerPort" 8080 "name" "metrics")
        (dict "containerPort" 9101 "name" "haproxy-metrics"))
    ) | nindent 4 }}
workerGroupSpecs:
  {{- $owned := dict
    "groupName" "it is the profile's name"
    "labels|modelendpoint.dev/profile" "it is the profile's name"
    "replicas" "set minWorkers of the profile"
    "minReplicas" "set minWorkers of the profile"
    "maxReplicas" "set maxWorkers of the profile"
    "numOfHosts" "the autoscaler counts workers of one host"
    "scaleStrategy" "KubeRay writes it"
  }}
  {{- range .Values.profiles }}
  {{- $text := include "model-endpoints.workerGroup" (dict "context" $ "profile" .) }}
  {{- $value := printf "workerGroup of profile %s" .name }}
  - {{ include "model-endpoints.overlaid" (dict "text" $text "overlay" .workerGroup "value" $value "owned" $owned) | indent 4 | trim }}
  {{- end }}
{{- end -}}

{{/* Spec of the RayService but its cluster. */}}
{{- define "model-endpoints.rayService" -}}
{{- if eq (int .Values.head.cpus) 0 }}
{{- /* No model runs there, and requests that come through it would be lost with it. */}}
excludeHeadPodFromServeSvc: true
{{- end }}
serveService:
  metadata:
    {{- /* The name that KubeRay would choose; the endpoints' status.url contains it. */}}
    name: {{ include "model-endpoints.fullname" . }}-serve-svc
    labels:
      {{- include "model-endpoints.rayLabels" . | nindent 6 }}
  spec:
    type: {{ .Values.service.type }}
    ports:
      - name: serve
        port: {{ .Values.service.port }}
        targetPort: 8000
        {{- with .Values.service.nodePort }}
        nodePort: {{ . }}
        {{- end }}
      {{- /* KubeRay leaves out ports whose names do not begin so. */}}
      - name: serve-grpc
        port: {{ .Values.service.grpcPort }}
        targetPort: 9000
        appProtocol: kubernetes.io/h2c
{{- end -}}
