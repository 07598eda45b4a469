{{- define "soupmix.name" -}}
{{- if contains "soupmix" .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-soupmix" .Release.Name | trunc 52 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "soupmix.selector" -}}
app.kubernetes.io/name: soupmix
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "soupmix.labels" -}}
{{ include "soupmix.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "soupmix.policy" -}}
{{- .Values.policy.configMap | default (printf "%s-policy" (include "soupmix.name" .)) -}}
{{- end }}

{{- define "soupmix.check" -}}
{{- $has := or .Values.policy.documents .Values.policy.configMap }}
{{- if and (not $has) (not .Values.policy.open) }}
{{- fail "there is no policy: give policy.documents or policy.configMap, or say policy.open=true" }}
{{- end }}
{{- if and $has .Values.policy.open }}
{{- fail "policy.open=true serves without any policy, and there are documents: leave one of them out" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.database.secret) }}
{{- fail "more than one replica needs one database for all of them: name a Secret in database.secret" }}
{{- end }}
{{- end }}
