{{- define "model-endpoints.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "model-endpoints.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "model-endpoints.labels" -}}
{{ include "model-endpoints.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Labels of Ray's pods. Not the chart's version: a change of a pod's template makes KubeRay replace the whole cluster. */}}
{{- define "model-endpoints.rayLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
{{- end -}}

{{/* Labels as a selector of the API server. */}}
{{- define "model-endpoints.selector" -}}
{{- $parts := list -}}
{{- range $label, $value := . }}{{ $parts = append $parts (printf "%s=%s" $label $value) }}{{ end -}}
{{- join "," $parts -}}
{{- end -}}

{{- define "model-endpoints.authSecret" -}}
{{- default (printf "%s-auth" (include "model-endpoints.fullname" .)) .Values.auth.secretName -}}
{{- end -}}

{{/* Name of the Secret with the keys of clients. */}}
{{- define "model-endpoints.keysSecret" -}}
{{- default (printf "%s-keys" (include "model-endpoints.fullname" .)) .Values.access.secretName -}}
{{- end -}}

{{/* Name of the store that the chart runs for Ray's head. */}}
{{- define "model-endpoints.headStore" -}}
{{- include "model-endpoints.fullname" . }}-head-store
{{- end -}}

{{/*
An image: a dict of image, value (the name of that value) and defaultTag. There is no default repository: this project
publishes no image, and a name that nobody owns could be taken by anybody.
*/}}
{{- define "model-endpoints.image" -}}
{{- $tag := default .defaultTag .image.tag -}}
{{- if not .image.repository -}}
{{- fail (printf "%s.repository is empty: name the image that you built with 'make images' and pushed to your registry. No images are published." .value) -}}
{{- else if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else if $tag -}}
{{- printf "%s:%s" .image.repository $tag -}}
{{- else -}}
{{- fail (printf "%s.tag and %s.digest are empty: set one of them. 'make images' prints the tag. The chart's version is no default, because a new tag makes KubeRay replace the Ray cluster." .value .value) -}}
{{- end -}}
{{- end -}}

{{/* Port of the operator's /healthz and /metrics. */}}
{{- define "model-endpoints.operatorPort" -}}
{{- int (default 8080 .Values.operator.settings.httpPort) -}}
{{- end -}}

{{/* The operator's settings but its namespace, as a JSON object of strings: those of the chart, and those of the values. */}}
{{- define "model-endpoints.operatorSettings" -}}
{{- $name := include "model-endpoints.fullname" . -}}
{{- $settings := dict
  "rayService" $name
  "profilesFile" "/etc/model-endpoints/profiles.yaml"
  "lease" (printf "%s-operator" $name)
  "serveApiUrl" (printf "http://%s-head-svc:8265" $name)
  "servicePort" (.Values.service.port | int | toString)
  "defaultRuntime" (toString .Values.runtime.default)
  "keysSecret" (include "model-endpoints.keysSecret" .)
  "accessConfigMap" (printf "%s-access" $name)
  "podSelector" (include "model-endpoints.rayLabels" . | fromYaml | include "model-endpoints.selector")
-}}
{{- if .Values.auth.enabled -}}
{{- $_ := set $settings "serveApiTokenFile" "/var/run/secrets/ray/auth_token" -}}
{{/* The gateway says what models have used only to whoever has the token. */}}
{{- $_ := set $settings "usageUrl" (printf "http://%s-head-svc:8000" $name) -}}
{{- end -}}
{{- with .Values.externalUrl }}{{ $_ := set $settings "externalUrl" . }}{{ end -}}
{{- range $setting, $value := .Values.operator.settings -}}
{{- if or (hasKey $settings $setting) (has $setting (list "namespace" "serveApiTokenFile" "usageUrl" "externalUrl")) -}}
{{- fail (printf "operator.settings.%s is set by the chart from other values: remove it" $setting) -}}
{{- end -}}
{{/* Numbers of a values file are floats, and a large one would be written with an exponent. */}}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ $value = int64 $value }}{{ end -}}
{{- $_ := set $settings $setting (toString $value) -}}
{{- end -}}
{{- toJson $settings -}}
{{- end -}}

{{/*
Peers that are KubeRay's operator. The label is the one that its Helm chart and its manifests have in common. The name
`kuberay` would not do: KubeRay gives it to every pod of Ray, in every namespace.
*/}}
{{- define "model-endpoints.kuberayPeers" -}}
{{- with .Values.networkPolicy.kuberay -}}
{{- if and .namespace .peers -}}
{{- fail "networkPolicy.kuberay.namespace and networkPolicy.kuberay.peers are both given: peers are said in full, so name the namespace in them" -}}
{{- else if .peers -}}
{{- toYaml .peers -}}
{{- else -}}
- namespaceSelector: {{ if .namespace }}{matchLabels: {kubernetes.io/metadata.name: {{ .namespace }}}}{{ else }}{}{{ end }}
  podSelector: {matchLabels: {app.kubernetes.io/component: kuberay-operator}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Fail if another release's RayService is the default runtime of the namespace. A rendering that cannot see the cluster finds
none. A RayService of this release may have had another name before.
*/}}
{{- define "model-endpoints.refuseSecondDefault" -}}
{{- if and .Values.runtime.default (.Capabilities.APIVersions.Has "ray.io/v1") -}}
{{- range (lookup "ray.io/v1" "RayService" .Release.Namespace "").items -}}
{{- $release := dig "annotations" "meta.helm.sh/release-name" "" .metadata -}}
{{- $isDefault := eq (dig "labels" "serving.modelendpoint.dev/default-runtime" "" .metadata) "true" -}}
{{- $isOurs := or (eq .metadata.name (include "model-endpoints.fullname" $)) (eq $release $.Release.Name) -}}
{{- if and $isDefault (not $isOurs) (not .metadata.deletionTimestamp) -}}
{{- fail (printf "runtime.default is true, but RayService %s of release %s is the default runtime of namespace %s already: set runtime.default to false for one of the two" .metadata.name (default "(unknown)" $release) $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Pod security "restricted", for each container. */}}
{{- define "model-endpoints.securityContext" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}
