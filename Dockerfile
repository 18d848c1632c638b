# docker build -t pmmo .                            CPU
# docker build -t pmmo --build-arg TORCH=cu130 .    a CUDA build of torch; run with --gpus all
# docker run --name run pmmo && docker cp run:/pmmo/reports .
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS base
# of the wheels at download.pytorch.org: the same release of torch for CPU, or for a CUDA
ARG TORCH=cpu
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/${TORCH}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

FROM base
WORKDIR /pmmo
COPY . .
RUN make works
ENV PATH=/pmmo/.venv/bin:$PATH
CMD ["dvc", "repro"]
