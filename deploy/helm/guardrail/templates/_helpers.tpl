{{- define "guardrail.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "guardrail.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "guardrail.labels" -}}
{{ include "guardrail.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What would be found out by patients otherwise. */ -}}
{{- define "guardrail.check" -}}
{{- if not .Values.existingSettings }}
{{- if and (not .Values.settings.upstream) (not .Values.secretVariables) }}{{ fail "settings.upstream: give the URL of the model's API, such as https://api.example.com" }}{{ end }}
{{- $many := or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}
{{- if and $many (hasPrefix "sqlite" (default "" .Values.settings.audit)) }}{{ fail "settings.audit: several replicas need postgresql://...; SQLite is for one (replicaCount: 1, autoscaling.enabled: false)" }}{{ end }}
{{- end }}
{{- if and .Values.rules.overrides .Values.rules.volume }}{{ fail "rules: give overrides or a volume, not both" }}{{ end }}
{{- $needed := add (int .Values.preStopSeconds) (int (default 30 .Values.settings.shutdown_seconds)) }}
{{- if le (int .Values.terminationGracePeriodSeconds) (int $needed) }}{{ fail (printf "terminationGracePeriodSeconds: must be more than %d (preStopSeconds and settings.shutdown_seconds), or streams are cut off" $needed) }}{{ end }}
{{- end }}
