{{/* What all pods share. */}}

{{/* A pod's identity in the cluster: no token of Kubernetes, no root, no capability. Takes the root. */}}
{{- define "tracklayer.podSecurity" -}}
automountServiceAccountToken: false
# Kubernetes' own variables (TRACKLAYER_INGEST_PORT=tcp://…) would stand beside the settings' and say nothing.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .Values.runAsUser }}
  runAsUser: {{ . | int64 }}
  runAsGroup: {{ . | int64 }}
  fsGroup: {{ . | int64 }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "tracklayer.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Variables of every process. Takes the root. */}}
{{- define "tracklayer.telemetryEnv" -}}
- name: TRACKLAYER_LOG
  value: {{ .Values.telemetry.log | quote }}
- name: TRACKLAYER_LOG_FORMAT
  value: {{ .Values.telemetry.logFormat | quote }}
{{- with .Values.telemetry.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Where a pod may run. A service's own value replaces the one for all. Takes root, own. */}}
{{- define "tracklayer.placement" -}}
{{- with default .root.Values.nodeSelector .own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default .root.Values.tolerations .own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default .root.Values.affinity .own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The Deployment of a service. Takes root, role. */}}
{{- define "tracklayer.deployment" -}}
{{- $root := .root -}}
{{- $own := index $root.Values .role -}}
{{- $role := get (include "tracklayer.roles" $root | fromYaml) .role -}}
{{- $named := dict "root" $root "component" .role "name" .role -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "tracklayer.metadata" $named | nindent 2 }}
spec:
  {{- if not (dig "autoscaling" "enabled" false $own) }}
  replicas: {{ $own.replicas | int64 }}
  {{- end }}
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "tracklayer.selectorLabels" $named | nindent 6 }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      # A new pod is there and ready before an old one goes.
      maxUnavailable: 0
      maxSurge: 1
  template:
    metadata:
      labels:
        {{- include "tracklayer.labels" $named | nindent 8 }}
        {{- with $root.Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        # Settings are read once, at start: a change rolls this service's pods, and no other's.
        checksum/settings: {{ printf "%s%s" (include "tracklayer.settings" .) (default "" $own.policy) | sha256sum }}
        {{- with include "tracklayer.secretValues" $root }}
        checksum/secrets: {{ . | sha256sum }}
        {{- end }}
        {{- with merge (deepCopy $own.podAnnotations) $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "tracklayer.serviceAccountName" $root | quote }}
      {{- include "tracklayer.podSecurity" $root | nindent 6 }}
      terminationGracePeriodSeconds: {{ $own.terminationGracePeriodSeconds | int64 }}
      {{- if $root.Values.topologySpread.enabled }}
      topologySpreadConstraints:
        {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: {{ $root.Values.topologySpread.whenUnsatisfiable }}
          labelSelector:
            matchLabels:
              {{- include "tracklayer.selectorLabels" $named | nindent 14 }}
          # Counted per revision: a rollout's old pods must not push the new ones to one side.
          matchLabelKeys: [pod-template-hash]
        {{- end }}
      {{- end }}
      {{- include "tracklayer.placement" (dict "root" $root "own" $own) | nindent 6 }}
      containers:
        - name: {{ .role }}
          image: {{ include "tracklayer.image" $root | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [{{ .role }}]
          env:
            - name: TRACKLAYER_CONFIG
              value: /etc/tracklayer/settings/tracklayer.toml
            {{- include "tracklayer.telemetryEnv" $root | nindent 12 }}
            {{- if eq .role "control" }}
            # For the command line, as in `kubectl exec deploy/… -- tracklayer stats`.
            {{- range list "control" "delivery" "ingest" }}
            - name: TRACKLAYER_{{ . | upper }}
              value: {{ include "tracklayer.address" (dict "root" $root "role" .) }}
            {{- end }}
            {{- end }}
            {{- with concat $root.Values.extraEnv $own.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - name: grpc
              containerPort: 7000
            {{- if $role.http }}
            - name: http
              containerPort: 8080
            {{- end }}
            - name: ops
              containerPort: 9000
          # A start may wait 15 s for the database before anything is served; then a minute for the rest.
          startupProbe:
            httpGet:
              path: /healthz
              port: ops
            periodSeconds: 2
            failureThreshold: 40
          # Alive is not ready: it is answered under any load, when all gRPC connections are in use, and while the database is
          # away, since a restart mends none of these.
          livenessProbe:
            httpGet:
              path: /healthz
              port: ops
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          readinessProbe:
            httpGet:
              path: /readyz
              port: ops
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 2
          lifecycle:
            preStop:
              # Until every node has taken the pod out of the Service, calls still come; the process takes them.
              sleep:
                seconds: 5
          resources:
            {{- toYaml $own.resources | nindent 12 }}
          securityContext:
            {{- include "tracklayer.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - name: settings
              mountPath: /etc/tracklayer/settings
              readOnly: true
            - name: secrets
              mountPath: /etc/tracklayer/secrets
              readOnly: true
            {{- with $root.Values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: settings
          configMap:
            name: {{ include "tracklayer.fullname" $root }}-settings
            items:
              - key: {{ .role }}.toml
                path: tracklayer.toml
              {{- if $own.policy }}
              - key: {{ .role }}-policy
                path: policy
              {{- end }}
        - name: secrets
          projected:
            defaultMode: 0440
            sources:
              {{- include "tracklayer.secretSources" . | trim | nindent 14 }}
        {{- with $root.Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end -}}
