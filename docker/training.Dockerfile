# The trainer, for a host with an NVIDIA GPU: torch's wheels bring CUDA, the host brings the driver.
#   docker build -f docker/training.Dockerfile -t idiolect-training .
FROM python:3.11-slim-bookworm

# Other places of packages than pip's own, for the build only.
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS

RUN groupadd --gid 10001 idiolect \
    && useradd --no-log-init --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin idiolect \
    && mkdir /models /runs \
    && chown idiolect:idiolect /models /runs

# Dependencies first, with empty packages in place of the source: an edit of the source does not install them again.
WORKDIR /app
COPY pyproject.toml LICENSE ./
COPY clients/python clients/python
COPY docker/install.sh docker/
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir -p idiolect server training/idiolect_training clients/cli/idiolect_cli \
    && touch README.md idiolect/__init__.py training/idiolect_training/__init__.py clients/cli/idiolect_cli/__init__.py \
    && IDIOLECT_GPU=1 docker/install.sh /opt/venv training
COPY idiolect idiolect
COPY training training
COPY clients/cli clients/cli

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA=cuda>=13.0 \
    HOME=/models \
    HF_HOME=/models/huggingface \
    IDIOLECT_CACHE_DIR=/models/idiolect

USER 10001:10001
VOLUME ["/models", "/runs"]
ENTRYPOINT ["idiolect"]
