# The image of an engine. VARIANT=cpu or gpu: vLLM for it; VARIANT=base: without an engine in
# simulator, for load and fault tests.
#   docker build -f deploy/images/inference.Dockerfile --build-arg VARIANT=gpu -t parley-inference .
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
ARG VARIANT=gpu
ARG PIP_INDEX_URL
ARG PIP_CERT
WORKDIR /build
COPY requirements/build.txt requirements/inference-${VARIANT}.txt ./
RUN python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes -r build.txt \
 && python -m venv /opt/parley \
 && /opt/parley/bin/pip install --no-cache-dir --no-compile --require-hashes -r inference-${VARIANT}.txt
COPY proto proto
COPY services/kit services/kit
COPY services/inference services/inference
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --no-index -w wheels \
      ./proto ./services/kit ./services/inference \
 && /opt/parley/bin/pip install --no-compile --no-deps --no-index wheels/*.whl \
 && /opt/parley/bin/pip uninstall --quiet --yes pip setuptools \
 && python -m compileall -q -j 0 $(/opt/parley/bin/python -c 'import parley_inference, parley_kit, os; print(*map(os.path.dirname, (parley_inference.__file__, parley_kit.__file__)))')

FROM ${BASE}
ARG VARIANT=gpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="parley-inference-${VARIANT}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# The engine keeps compiled code and downloaded weights under HOME: a volume, in the chart.
ENV PATH=/opt/parley/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/var/lib/parley
COPY --from=build /opt/parley /opt/parley
RUN mkdir -p /var/lib/parley && chown 65532:65532 /var/lib/parley
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "parley_inference"]
