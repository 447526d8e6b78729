# One image of one service: gateway, session (its worker as well) or cache. `make images`, or
#   docker build -f deploy/images/service.Dockerfile --build-arg SERVICE=session -t parley-session .
# The base is given by name so that a mirror or a digest can stand for it.
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
ARG SERVICE
# Where packages come from is the builder's affair: PIP_INDEX_URL and the like, as arguments.
ARG PIP_INDEX_URL
ARG PIP_CERT
WORKDIR /build
COPY requirements/build.txt requirements/${SERVICE}.txt ./
# Compiled here: a pod can write no byte code, and a change of the sources redoes none of this.
RUN python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes -r build.txt \
 && python -m venv /opt/parley \
 && /opt/parley/bin/pip install --no-cache-dir --no-compile --require-hashes -r ${SERVICE}.txt \
 && python -m compileall -q -j 0 /opt/parley/lib
COPY proto proto
COPY services/kit services/kit
COPY services/${SERVICE} services/${SERVICE}
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --no-index -w wheels \
      ./proto ./services/kit ./services/${SERVICE} \
 && /opt/parley/bin/pip install --no-compile --no-deps --no-index wheels/*.whl \
 && /opt/parley/bin/pip uninstall --quiet --yes pip setuptools \
 && python -m compileall -q -j 0 /opt/parley/lib

FROM ${BASE}
ARG SERVICE
# The base's own pip: nothing is installed into an image that runs.
RUN rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip*
ENV PATH=/opt/parley/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PARLEY_MODULE=parley_${SERVICE}
COPY --from=build /opt/parley /opt/parley
# A number, so that `runAsNonRoot` can be checked; nothing is written but to /tmp.
USER 65532:65532
WORKDIR /tmp
# `exec`: the service is process 1 and gets SIGTERM itself.
ENTRYPOINT ["/bin/sh", "-c", "exec python -m \"$PARLEY_MODULE\" \"$@\"", "parley"]
# Last, so that another revision of the same content shares every layer.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="parley-${SERVICE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
