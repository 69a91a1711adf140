{{- define "parts.name" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "parts.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* A pod: root, image, and optionally config (name of a ConfigMap), secret, account, once. */ -}}
{{- define "parts.pod" -}}
metadata:
  labels:
    {{- if .once }}
    app.kubernetes.io/part-of: {{ .root.Release.Name }}
    {{- else }}
    {{- include "parts.labels" .root | nindent 4 }}
    {{- end }}
spec:
  {{- with .account }}
  serviceAccountName: {{ . }}
  {{- end }}
  {{- if .once }}
  restartPolicy: Never
  {{- end }}
  containers:
    - name: main
      image: {{ .image | quote }}
      {{- if or .config .secret }}
      envFrom:
        {{- with .config }}
        - configMapRef: {name: {{ . }}}
        {{- end }}
        {{- with .secret }}
        - secretRef: {name: {{ . }}}
        {{- end }}
      {{- end }}
      {{- if not .once }}
      readinessProbe: {httpGet: {path: /, port: 80}}
      {{- end }}
{{- end -}}
