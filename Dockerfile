# ptystream in a container: one image for every role.
#
#   docker build -t ptystream .                                   builds from source
#   docker build -t ptystream --target packaged FOLDER   takes FOLDER/ptystream, built on Debian 12,
#                                                         and FOLDER/Dockerfile, this one
#
# Stages stand in this order so that an engine without BuildKit makes `packaged` without the build.

ARG BASE=debian:bookworm-slim
ARG RUST=rust:1-slim-bookworm

FROM ${BASE} AS base
RUN command -v h5ls >/dev/null 2>&1 && ldconfig -p | grep -q libhdf5_serial.so.103 \
    || { apt-get update && apt-get install -y --no-install-recommends libhdf5-103-1 \
    && rm -rf /var/lib/apt/lists/*; }
RUN useradd --uid 1000 --create-home ptystream && mkdir -p /raw /out && chown ptystream /out
USER ptystream
WORKDIR /out
ENV PTYSTREAM_HEALTH=/tmp/ptystream.health
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["ptystream", "health"]
ENTRYPOINT ["ptystream"]
CMD ["--help"]

FROM base AS packaged
COPY ptystream /usr/local/bin/ptystream

FROM ${RUST} AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
    g++ libc6-dev libhdf5-dev make pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked && strip target/release/ptystream

FROM base AS runtime
COPY --from=build /src/target/release/ptystream /usr/local/bin/ptystream
