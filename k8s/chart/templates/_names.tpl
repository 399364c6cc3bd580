{{/* Names, labels and the image. */}}

{{/* What every object's name begins with. 45 characters leave room for "-identity-headless" inside DNS' 63; a release may have
     dots in its name, a Service may not. */}}
{{- define "tracklayer.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $full = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{- $full | replace "." "-" | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects the pods of this release. */}}
{{- define "tracklayer.instanceLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* What selects the pods of one component; never changes, since a Deployment's selector cannot. Takes root, component. */}}
{{- define "tracklayer.selectorLabels" -}}
{{ include "tracklayer.instanceLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* All labels of an object. Takes root, component. */}}
{{- define "tracklayer.labels" -}}
{{ include "tracklayer.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tracklayer
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name, namespace and labels of an object. Takes root, component, name (what follows the full name, may be empty). */}}
{{- define "tracklayer.metadata" -}}
name: {{ printf "%s-%s" (include "tracklayer.fullname" .root) .name | trimSuffix "-" | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "tracklayer.labels" . | nindent 2 }}
{{- end -}}

{{/* A digest names the content and wins over a tag, which can be moved. */}}
{{- define "tracklayer.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tracklayer.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tracklayer.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}
