{{/* Templates that Ray's head and workers share. */}}

{{/* Where the CA bundle is mounted. */}}
{{- define "model-endpoints.caFolder" -}}/etc/model-endpoints/ca{{- end -}}

{{/* Where the policy and the keys of clients are mounted. */}}
{{- define "model-endpoints.accessFolder" -}}/etc/model-endpoints{{- end -}}

{{/* Hosts that are never asked through a proxy: this pod, the cluster's Services, and those of the values. */}}
{{- define "model-endpoints.noProxy" -}}
{{- concat (list "localhost" "127.0.0.1" "::1" ".svc" ".svc.cluster.local") .Values.proxy.noProxy | uniq | join "," -}}
{{- end -}}

{{/*
Environment of a pod's container: a dict of context, component and own, the values of the head or of the profile. Their own
variables win over those of all pods, and these over the defaults.
*/}}
{{- define "model-endpoints.rayEnv" -}}
{{- $component := .component -}}
{{- $own := default list .own.env -}}
{{- with .context -}}
{{- $named := list -}}
{{- range $own }}{{ $named = append $named .name }}{{ end -}}
{{- $shared := list -}}
{{- range .Values.ray.env }}{{ if not (has .name $named) }}{{ $shared = append $shared . }}{{ end }}{{ end -}}
{{- $given := $named -}}
{{- range $shared }}{{ $given = append $given .name }}{{ end -}}
{{/* HAProxy with our rules in front of the replicas, and Ray's own settings for throughput. By default, Ray's workers have
the lowest priority, and all threads of a model then wait for the one that another program has preempted. By default, two late
answers to checks take a replica out of rotation, which a busy machine does to all at once. Answers through the gateway may be as
large as others; by default, up to 4 MiB. HAProxy reads the model's name in bodies of up to 256 KiB; by default, 15. A
controller that was started again waits longer for the replicas that run, and drops checkpoints that it cannot read.
What replicas log of requests goes to the container's standard output, which is that of its first process; Ray keeps that of
replicas in files. */}}
{{- $defaults := dict
  "RAY_SERVE_ENABLE_HA_PROXY" "1"
  "RAY_SERVE_HAPROXY_BINARY_PATH" "/opt/model-endpoints/bin/model-endpoints-haproxy"
  "RAY_SERVE_HAPROXY_NBTHREAD" "1"
  "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL" "4"
  "RAY_SERVE_HAPROXY_TUNE_BUFSIZE" "262144"
  "RAY_SERVE_THROUGHPUT_OPTIMIZED" "1"
  "RAY_SERVE_USE_GRPC_BY_DEFAULT" "1"
  "RAY_SERVE_PROXY_USE_GRPC" "1"
  "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH" "67108864"
  "RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH" "serve_app.recovery.prepare"
  "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S" "5"
  "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S" "10"
  "RAY_SERVE_LOG_TO_STDERR" "1"
  "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO" "1"
  "RAY_USAGE_STATS_ENABLED" "0"
  "RAY_worker_niceness" "0"
  "MODEL_ENDPOINTS_LINES" "/proc/1/fd/1"
  "MODEL_ENDPOINTS_FORK_WORKERS" (ternary (ternary "serve" "models" (eq $component "head")) "off" .Values.ray.forkWorkers)
  "MODEL_ENDPOINTS_ACCESS" (include "model-endpoints.accessFolder" .)
  "TOKENIZERS_PARALLELISM" "false"
  "HOME" "/home/ray"
  "HF_HOME" "/cache/huggingface"
-}}
{{- if eq $component "worker" -}}
{{- /* It drains before it is asked to end, and Ray would wait for half a minute to drain once more. */ -}}
{{- $_ := set $defaults "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S" "0" -}}
{{- end -}}
{{- if eq $component "head" -}}
{{- with .Values.head.faultTolerance }}
{{- if and (eq .store "redis") (hasPrefix "rediss://" .redis.address) $.context.Values.caBundle.configMap -}}
{{- $_ := set $defaults "RAY_REDIS_CA_CERT" (printf "%s/%s" (include "model-endpoints.caFolder" $) $.context.Values.caBundle.key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.logging.accessLog }}{{ $_ := set $defaults "MODEL_ENDPOINTS_ACCESS_LOG" "1" }}{{ end -}}
{{- with .Values.service.corsOrigins }}{{ $_ := set $defaults "MODEL_ENDPOINTS_CORS_ORIGINS" (join "," .) }}{{ end -}}
{{- if .Values.monitoring.perKey }}{{ $_ := set $defaults "MODEL_ENDPOINTS_METRICS_PER_KEY" "1" }}{{ end -}}
{{- if .Values.hub.endpoint }}{{ $_ := set $defaults "HF_ENDPOINT" .Values.hub.endpoint }}{{ end -}}
{{- if .Values.hub.offline }}{{ $_ := set $defaults "HF_HUB_OFFLINE" "1" }}{{ end -}}
{{- if .Values.hub.tokenSecret.name }}{{ $_ := set $defaults "HF_TOKEN_PATH" "/var/run/secrets/hub/token" }}{{ end -}}
{{- with .Values.caBundle }}
{{- if .configMap -}}
{{- $file := printf "%s/%s" (include "model-endpoints.caFolder" $) .key -}}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "CURL_CA_BUNDLE" }}{{ $_ := set $defaults . $file }}{{ end -}}
{{- end -}}
{{- end -}}
{{/* In capitals alone: gRPC reads the small letters, and would take Ray's own calls to pods through the proxy. */}}
{{- if .Values.proxy.http }}{{ $_ := set $defaults "HTTP_PROXY" .Values.proxy.http }}{{ end -}}
{{- if .Values.proxy.https }}{{ $_ := set $defaults "HTTPS_PROXY" .Values.proxy.https }}{{ end -}}
{{- if or .Values.proxy.http .Values.proxy.https }}{{ $_ := set $defaults "NO_PROXY" (include "model-endpoints.noProxy" .) }}{{ end -}}
{{- range $name, $value := $defaults }}
{{- if not (has $name $given) }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- with concat $shared $own }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Mounts of a pod's container: a dict of context and own. */}}
{{- define "model-endpoints.rayVolumeMounts" -}}
{{- $own := default list .own.volumeMounts -}}
{{- with .context -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/ray}
- {name: cache, mountPath: /cache}
{{- /* Always mounted, since a mount that comes later would replace the Ray cluster. */}}
- {name: access, mountPath: {{ include "model-endpoints.accessFolder" . }}/access, readOnly: true}
- {name: keys, mountPath: {{ include "model-endpoints.accessFolder" . }}/keys, readOnly: true}
{{- if .Values.hub.tokenSecret.name }}
- {name: hub-token, mountPath: /var/run/secrets/hub, readOnly: true}
{{- end }}
{{- if .Values.hub.tokenSecrets }}
- {name: hub-tokens, mountPath: /var/run/secrets/hub-tokens, readOnly: true}
{{- end }}
{{- range .Values.modelVolumes }}
- {name: {{ printf "models-%s" . }}, mountPath: /volumes/{{ . }}, readOnly: true}
{{- end }}
{{- if .Values.caBundle.configMap }}
- {name: ca-bundle, mountPath: {{ include "model-endpoints.caFolder" . }}, readOnly: true}
{{- end }}
{{- with concat .Values.ray.volumeMounts $own }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Volumes of a pod: a dict of context, component and own. */}}
{{- define "model-endpoints.rayVolumes" -}}
{{- $own := default list .own.volumes -}}
{{- $component := .component -}}
{{- with .context -}}
{{- if eq $component "head" }}
- name: api-token
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}
- {name: tmp, emptyDir: {}}
- {name: home, emptyDir: {}}
{{- if .Values.hub.cacheClaim }}
- {name: cache, persistentVolumeClaim: {claimName: {{ .Values.hub.cacheClaim }}}}
{{- else }}
- {name: cache, emptyDir: {}}
{{- end }}
- {name: access, configMap: {name: {{ include "model-endpoints.fullname" . }}-access}}
- {name: keys, secret: {secretName: {{ include "model-endpoints.keysSecret" . }}, optional: true, defaultMode: 288}}
{{- with .Values.hub.tokenSecret }}
{{- if .name }}
- {name: hub-token, secret: {secretName: {{ .name }}, items: [{key: {{ .key }}, path: token}]}}
{{- end }}
{{- end }}
{{- with .Values.hub.tokenSecrets }}
- name: hub-tokens
  projected:
    defaultMode: 288
    sources:
      {{- range . }}
      {{- /* One that is missing must not keep the pods of all others from starting. */}}
      - secret: {name: {{ quote . }}, optional: true, items: [{key: token, path: {{ quote . }}}]}
      {{- end }}
{{- end }}
{{- range .Values.modelVolumes }}
- {name: {{ printf "models-%s" . }}, persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}}
{{- end }}
{{- with .Values.caBundle }}
{{- if .configMap }}
- {name: ca-bundle, configMap: {name: {{ .configMap }}, items: [{key: {{ .key }}, path: {{ .key }}}]}}
{{- end }}
{{- end }}
{{- with concat .Values.ray.volumes $own }}
{{ toYaml . }}
{{- end }}
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

{{/* Name of the service account of Ray's pods; empty if KubeRay and Kubernetes choose. */}}
{{- define "model-endpoints.rayServiceAccount" -}}
{{- with .Values.ray.serviceAccount -}}
{{- if .name }}{{ .name }}{{ else if .create }}{{ include "model-endpoints.fullname" $ }}-ray{{ end -}}
{{- end -}}
{{- end -}}

{{/*
Spread of the workers of a profile. Without a selector, Kubernetes would count no pods. Workers of another Ray cluster, which an
upgrade prepares or removes, are not counted.
*/}}
{{- define "model-endpoints.spread" -}}
{{- $constraints := list -}}
{{- range .topologySpreadConstraints -}}
{{- $labels := dict "ray.io/group" $.name "ray.io/node-type" "worker" -}}
{{- $group := dict "labelSelector" (dict "matchLabels" $labels) "matchLabelKeys" (list "ray.io/cluster") -}}
{{- $constraints = append $constraints (ternary . (merge (deepCopy .) $group) (hasKey . "labelSelector")) -}}
{{- end -}}
{{- toYaml $constraints -}}
{{- end -}}

{{/* Template of a pod: a dict of context, name, component, resources, ports and own, the values of the head or of the profile. */}}
{{- define "model-endpoints.rayPod" -}}
metadata:
  labels:
    {{- include "model-endpoints.rayLabels" .context | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  {{- with merge (deepCopy (default dict .own.annotations)) .context.Values.ray.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- /* Autoscaler v2 replaces pods. A pod that restarts its container would be a node that it does not know. */}}
  restartPolicy: Never
  {{- /* Ray's autoscaler alone asks the API server; it mounts the volume api-token. */}}
  automountServiceAccountToken: false
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
  {{- with default (include "model-endpoints.rayServiceAccount" .context) .own.serviceAccountName }}
  serviceAccountName: {{ toYaml . }}
  {{- end }}
  {{- with .own.priorityClassName }}
  priorityClassName: {{ toYaml . }}
  {{- end }}
  {{- with default (ternary .context.Values.drain.seconds 0 (eq .component "worker")) .own.terminationGracePeriodSeconds }}
  terminationGracePeriodSeconds: {{ int64 . }}
  {{- end }}
  {{- with .own.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .own.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- include "model-endpoints.spread" .own | nindent 4 }}
  {{- end }}
  {{- with .own.runtimeClassName }}
  runtimeClassName: {{ toYaml . }}
  {{- end }}
  {{- with .own.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .own.tolerations }}
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
      {{- if eq .component "worker" }}
      {{- /* KubeRay's own takes a worker out of the Service after one answer in 2 seconds that is late, and its shells use processor time. */}}
      readinessProbe:
        httpGet: {path: /-/healthz, port: 8000}
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 3
      lifecycle:
        {{- /* A little less than the pod has, so that what is left over is ended by the command and not by the kubelet. */}}
        preStop: {exec: {command: [model-endpoints-drain, {{ sub (int64 (default .context.Values.drain.seconds .own.terminationGracePeriodSeconds)) 5 | quote }}]}}
      {{- end }}
      {{- with .ports }}
      ports:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- include "model-endpoints.resources" .resources | trim | nindent 8 }}
      volumeMounts:
        {{- include "model-endpoints.rayVolumeMounts" . | nindent 8 }}
  volumes:
    {{- include "model-endpoints.rayVolumes" . | nindent 4 }}
{{- end -}}
