{{/* The services and the settings file of each. */}}

{{/* The services: whether each has an HTTP port, whether it needs Redis and the journal, and whom it calls. */}}
{{- define "tracklayer.roles" -}}
ingest:
  http: true
  redis: true
  journal: true
  calls: [control, consent]
identity:
  http: false
  redis: false
  journal: false
  calls: [consent]
consent:
  http: false
  redis: false
  journal: false
  calls: []
delivery:
  http: false
  redis: true
  journal: true
  calls: [control, identity, consent]
control:
  http: true
  redis: false
  journal: false
  calls: [delivery]
{{- end -}}

{{/* gRPC address of a service for the other services: the name of all its replicas, over which each caller spreads its calls.
     Takes root, role. */}}
{{- define "tracklayer.address" -}}
http://{{ include "tracklayer.fullname" .root }}-{{ .role }}-headless:7000
{{- end -}}

{{/* The operator's settings of a service, with what follows from the rest of the values. Takes root, role. */}}
{{- define "tracklayer.ownSettings" -}}
{{- $settings := deepCopy (index .root.Values .role).settings -}}
{{- $ingress := .root.Values.ingress -}}
{{- if and (eq .role "ingest") $ingress.ingest.enabled (not (hasKey $settings "trusted_proxies")) -}}
{{- $_ := set $settings "trusted_proxies" 1 -}}
{{- end -}}
{{- if and (eq .role "control") $ingress.console.enabled $ingress.console.tls.enabled (not (hasKey $settings "console_cookies_https_only")) -}}
{{- $_ := set $settings "console_cookies_https_only" true -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* The settings file of a service, TOML. Values go through toJson: Helm's numbers are floats, and its TOML writes a million
     as 1e+06, which is no whole number to the reader. Takes root, role. */}}
{{- define "tracklayer.settings" -}}
{{- $role := get (include "tracklayer.roles" .root | fromYaml) .role -}}
[process]
listen_grpc = {{ printf "%s:7000" .root.Values.listenAddress | toJson }}
{{- if $role.http }}
listen_http = {{ printf "%s:8080" .root.Values.listenAddress | toJson }}
{{- end }}
listen_ops = {{ printf "%s:9000" .root.Values.listenAddress | toJson }}
master_key_file = "/etc/tracklayer/secrets/master-key"

[{{ .role }}]
database_url_file = "/etc/tracklayer/secrets/database-url"
{{- if $role.redis }}
redis_url_file = "/etc/tracklayer/secrets/redis-url"
{{- end }}
{{- if $role.journal }}
journal = {{ .root.Values.journal.kind | toJson }}
{{- if eq .root.Values.journal.kind "kafka" }}
{{- with .root.Values.journal.kafka }}
kafka_brokers = {{ .brokers | toJson }}
kafka_prefix = {{ .prefix | toJson }}
kafka_replication = {{ .replication | toJson }}
kafka_security_protocol = {{ .securityProtocol | toJson }}
{{- range $source := include "tracklayer.kafkaSecrets" $.root | fromYamlArray }}
{{ $source.setting }}_file = {{ printf "/etc/tracklayer/secrets/%s" $source.file | toJson }}
{{- end }}
{{- if hasPrefix "sasl_" .securityProtocol }}
kafka_sasl_mechanism = {{ .sasl.mechanism | toJson }}
kafka_user = {{ .sasl.user | toJson }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq .role "control" }}
journal = {{ .root.Values.journal.kind | toJson }}
{{- end }}
{{- range $role.calls }}
{{ . }}_address = {{ include "tracklayer.address" (dict "root" $.root "role" .) | toJson }}
{{- end }}
{{- if get (index .root.Values .role) "policy" }}
policy_file = "/etc/tracklayer/settings/policy"
{{- end }}
{{- range $key, $value := include "tracklayer.ownSettings" . | fromYaml }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end -}}
