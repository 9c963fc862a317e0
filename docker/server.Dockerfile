# The server, for a host with an NVIDIA GPU: vLLM's wheels bring CUDA, the host brings the driver.
#   docker build -f docker/server.Dockerfile -t idiolect-server .

# The page that the server shows at /. Nothing of Node.js stays in the image.
FROM node:22-bookworm-slim AS page
# Another place of packages than npm's own, for the build only.
ARG NPM_CONFIG_REGISTRY
WORKDIR /app
COPY clients/web clients/web
WORKDIR /app/clients/web
RUN --mount=type=cache,target=/root/.npm npm ci --no-audit --no-fund && npm run build

FROM python:3.11-slim-bookworm

# 0: for a machine without a GPU, to try it.
ARG GPU=1
# Other places of packages than pip's own, for the build only.
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS

# Triton compiles its launchers with a C compiler when the server starts. vLLM for the CPU is linked to libnuma.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libnuma1 \
    && rm -rf /var/lib/apt/lists/*

RUN groupadd --gid 10001 idiolect \
    && useradd --no-log-init --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin idiolect \
    && mkdir /models /bundles /data \
    && chown idiolect:idiolect /models /data

# Dependencies first, with empty packages in place of the source: an edit of the source does not install them again.
WORKDIR /app
COPY pyproject.toml LICENSE ./
COPY clients/python clients/python
COPY docker/install.sh docker/
COPY docker/lock docker/lock
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir -p idiolect server/idiolect_server training clients/cli/idiolect_cli \
    && touch README.md idiolect/__init__.py server/idiolect_server/__init__.py clients/cli/idiolect_cli/__init__.py \
    && IDIOLECT_GPU=$GPU docker/install.sh /opt/venv serve-gpu
COPY idiolect idiolect
COPY server server
COPY --from=page /app/server/idiolect_server/page/built server/idiolect_server/page/built
COPY clients/cli clients/cli

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA=cuda>=13.0 \
    HOME=/models \
    HF_HOME=/models/huggingface \
    XDG_CACHE_HOME=/models/cache \
    TRITON_CACHE_DIR=/models/cache/triton \
    VLLM_NO_USAGE_STATS=1 \
    IDIOLECT_CACHE_DIR=/models/idiolect \
    IDIOLECT_DATA_DIR=/data

USER 10001:10001
VOLUME ["/models", "/data"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --retries=3 --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/live', timeout=5)"]
ENTRYPOINT ["idiolect"]
CMD ["serve"]
