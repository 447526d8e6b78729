# An engine's image with the weights of a model in it, for a pool whose weights are in its image.
ARG ENGINE
FROM ${ENGINE}
COPY --chown=65532:65532 . /models/smol
