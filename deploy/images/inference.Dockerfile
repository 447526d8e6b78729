# The image of an engine. VARIANT=cpu or gpu: with vLLM for it; VARIANT=base: without, for an
# OpenAI-compatible upstream, and for the simulator of load and fault tests. `make images`, or
#   docker build -f deploy/images/inference.Dockerfile --build-arg VARIANT=gpu -t parley-inference-gpu .
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
ARG VARIANT=gpu
ARG PIP_INDEX_URL
ARG PIP_CERT
WORKDIR /build
COPY requirements/build.txt requirements/inference-${VARIANT}.txt ./
# The lock names all that is installed, and leaves out what some of it asks for and never uses.
RUN python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes -r build.txt \
 && python -m venv /opt/parley \
 && /opt/parley/bin/pip install --no-cache-dir --no-compile --no-deps --require-hashes -r inference-${VARIANT}.txt
COPY proto proto
COPY services/kit services/kit
COPY services/inference services/inference
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --no-index -w wheels \
      ./proto ./services/kit ./services/inference \
 && /opt/parley/bin/pip install --no-compile --no-deps --no-index wheels/*.whl \
 && { grep -q '^setuptools==' inference-${VARIANT}.txt || /opt/parley/bin/pip uninstall --quiet --yes setuptools; } \
 && /opt/parley/bin/pip uninstall --quiet --yes pip \
 && python -m compileall -q -j 0 $(/opt/parley/bin/python -c 'import parley_inference, parley_kit, os; print(*map(os.path.dirname, (parley_inference.__file__, parley_kit.__file__)))')

FROM ${BASE}
ARG VARIANT=gpu
# On a GPU kernels are compiled where they run (Triton), which takes a C compiler. On a CPU vLLM's
# own code is linked against libnuma.
RUN case "${VARIANT}" in gpu) needs="gcc libc6-dev";; cpu) needs=libnuma1;; *) needs="";; esac; \
    if [ -n "$needs" ]; then \
      apt-get update && apt-get install -y --no-install-recommends $needs && rm -rf /var/lib/apt/lists/*; \
    fi
RUN rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* \
 && mkdir -p /var/lib/parley && chown 65532:65532 /var/lib/parley
# The engine keeps compiled code and downloaded weights under HOME: a volume, in the chart.
ENV PATH=/opt/parley/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/var/lib/parley
COPY --from=build /opt/parley /opt/parley
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "parley_inference"]
# Last, so that another revision of the same content shares every layer.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="parley-inference-${VARIANT}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
