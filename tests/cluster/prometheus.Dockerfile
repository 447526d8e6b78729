# Prometheus for clusters that can pull none: tests only. The context holds its binary.
ARG BASE=docker.io/library/python:3.11-slim
FROM ${BASE}
COPY prometheus /usr/local/bin/prometheus
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["prometheus"]
