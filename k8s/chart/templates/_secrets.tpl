{{/* The three secrets: each stands in a Secret that exists, or is given as a value and kept in a Secret of this release. */}}

{{/* Name and key of a secret. Takes root, block (database, redis, masterKey). */}}
{{- define "tracklayer.secretRef" -}}
{{- $about := get (include "tracklayer.secrets" . | fromYaml) .block -}}
{{- $values := index .root.Values .block -}}
{{- $given := get $values $about.field -}}
{{- if and $values.existingSecret $given -}}
{{- fail (printf "\n\n%s.existingSecret and %s.%s are both given: which one is meant? Take one away.\n" .block .block $about.field) -}}
{{- else if $values.existingSecret -}}
name: {{ $values.existingSecret | quote }}
key: {{ $values.existingSecretKey | quote }}
{{- else if $given -}}
name: {{ include "tracklayer.fullname" .root | quote }}
key: {{ $about.file }}
{{- else -}}
{{- fail (include "tracklayer.missingSecrets" .root) -}}
{{- end -}}
{{- end -}}

{{/* What to do about every secret that is not given: all at once, not one after the other. Takes the root. */}}
{{- define "tracklayer.missingSecrets" -}}
{{- $root := . -}}
{{- range $block, $about := include "tracklayer.secrets" . | fromYaml -}}
{{- $values := index $root.Values $block -}}
{{- if not (or $values.existingSecret (get $values $about.field)) -}}
{{- printf "\n\nTrackLayer needs %s. Make a Secret and name it:\n  kubectl -n %s create secret generic NAME --from-literal=%s=%s\n  … --set %s.existingSecret=NAME\nor, where values are kept secret, give %s.%s."
      $about.what $root.Release.Namespace $values.existingSecretKey $about.example $block $block $about.field -}}
{{- end -}}
{{- end }}
{{ end -}}

{{/* What they are: the value that may hold each, its file in the pods, and how to say that it is missing. */}}
{{- define "tracklayer.secrets" -}}
database:
  field: url
  file: database-url
  what: the address of a PostgreSQL database (the primary)
  example: "'postgres://USER:PASSWORD@HOST:5432/DATABASE'"
redis:
  field: url
  file: redis-url
  what: the address of a Redis that runs with maxmemory-policy noeviction
  example: "'redis://HOST:6379'"
masterKey:
  field: value
  file: master-key
  what: a master key, 64 hexadecimal digits. Keep a copy, nothing can be read without it
  example: '"$(openssl rand -hex 32)"'
{{- end -}}

{{/* Those that are given as values, as a YAML map from file to value; none where all stand in Secrets that exist. */}}
{{- define "tracklayer.secretValues" -}}
{{- $root := . -}}
{{- range $block, $about := include "tracklayer.secrets" . | fromYaml -}}
{{- with get (index $root.Values $block) $about.field }}
{{ $about.file }}: {{ . | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What of Secrets that exist is needed to come into the Kafka cluster, as a YAML list of secret, key, file and the setting that names
     the file; empty where the journal is not there. Takes the root. */}}
{{- define "tracklayer.kafkaSecrets" -}}
{{- $kafka := .Values.journal.kafka -}}
{{- if eq .Values.journal.kind "kafka" -}}
{{- if has $kafka.securityProtocol (list "ssl" "sasl_ssl") -}}
{{- with $kafka.ca -}}{{- if .existingSecret }}
- {secret: {{ .existingSecret | quote }}, key: {{ .existingSecretKey | quote }}, file: kafka-ca, setting: kafka_ca}
{{- end -}}{{- end -}}
{{- with $kafka.certificate -}}{{- if .existingSecret }}
- {secret: {{ .existingSecret | quote }}, key: {{ .certificateKey | quote }}, file: kafka-certificate, setting: kafka_certificate}
- {secret: {{ .existingSecret | quote }}, key: {{ .privateKeyKey | quote }}, file: kafka-certificate-key, setting: kafka_certificate_key}
{{- end -}}{{- end -}}
{{- end -}}
{{- if hasPrefix "sasl_" $kafka.securityProtocol }}
- {secret: {{ $kafka.sasl.existingSecret | quote }}, key: {{ $kafka.sasl.existingSecretKey | quote }}, file: kafka-password, setting: kafka_password}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The secrets of a service as files. Takes root, role. */}}
{{- define "tracklayer.secretSources" -}}
{{- $root := .root -}}
{{- $about := include "tracklayer.secrets" . | fromYaml -}}
{{- $role := get (include "tracklayer.roles" $root | fromYaml) .role -}}
{{- range $block := ternary (list "database" "redis" "masterKey") (list "database" "masterKey") $role.redis -}}
{{- $ref := include "tracklayer.secretRef" (dict "root" $root "block" $block) | fromYaml }}
- secret:
    name: {{ $ref.name | quote }}
    items:
      - key: {{ $ref.key | quote }}
        path: {{ get (get $about $block) "file" }}
{{- end -}}
{{- if $role.journal -}}
{{- range $source := include "tracklayer.kafkaSecrets" $root | fromYamlArray }}
- secret:
    name: {{ $source.secret | quote }}
    items:
      - key: {{ $source.key | quote }}
        path: {{ $source.file }}
{{- end -}}
{{- end -}}
{{- end -}}
