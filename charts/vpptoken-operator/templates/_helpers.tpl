{{/* Name of the release's objects: the release's name, with the chart's unless it is already part of it. */}}
{{- define "vpptoken-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "vpptoken-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "vpptoken-operator.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name is missing: with serviceAccount.create false, name the ServiceAccount that the operator runs as" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "vpptoken-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "vpptoken-operator.labels" -}}
{{ include "vpptoken-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* A GUID, or an error that says what is missing. Takes (list value what). */}}
{{- define "vpptoken-operator.guid" -}}
{{- $value := index . 0 -}}
{{- $what := index . 1 -}}
{{- if not $value -}}
{{- fail (printf "%s; or leave tenant.create false and write a tenant object yourself" $what) -}}
{{- else if not (regexMatch "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$" $value) -}}
{{- fail (printf "%s, for example 8d3f5b9e-0c1d-4f6a-9b57-1f0c5f2f7c11; %q is not one" $what $value) -}}
{{- else -}}
{{- $value -}}
{{- end -}}
{{- end -}}
