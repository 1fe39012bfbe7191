# syntax=docker/dockerfile:1
# The backend for Label Studio. docs/deploy.md says how to build and run it.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1

FROM base AS wheel
WORKDIR /src
RUN --mount=type=bind,source=requirements-build.lock,target=/mnt/requirements-build.lock \
    pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r /mnt/requirements-build.lock
COPY pyproject.toml requirements.txt requirements-cluster.txt README.md model.py _wsgi.py ./
COPY tam_backend ./tam_backend
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM base
LABEL org.opencontainers.image.title="track anything for Label Studio" \
      org.opencontainers.image.description="ML backend: clicked objects become masks on every frame of a video" \
      org.opencontainers.image.version="0.1.0"

# A number that stays the same, so that the files in volumes keep their owner from one image to the next.
RUN groupadd --gid 10001 tam \
    && useradd --uid 10001 --gid tam --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tam \
    && install --directory --owner=tam --group=tam /data /checkpoints

# From the layer that changes least to the one that changes most. The lock file has everything, label-studio-ml among it,
# with the hashes of the files: nothing else is installed here, and nothing is built from source.
RUN --mount=type=bind,source=requirements.lock,target=/mnt/requirements.lock \
    pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r /mnt/requirements.lock

# WITH_TORCH=yes: PyTorch for the learned networks. The index's own wheels for x86-64 hold CUDA 13 and run on CPUs too;
# TORCH_INDEX_URL names PyTorch's index for wheels of another kind (smaller ones for CPUs only, or another CUDA). These
# have no hashes: which files they are depends on that index.
ARG WITH_TORCH=no
ARG TORCH_INDEX_URL
RUN --mount=type=bind,source=requirements-torch.txt,target=/mnt/requirements-torch.txt \
    case "$WITH_TORCH" in \
      no) ;; \
      yes) pip install --no-cache-dir ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
             -r /mnt/requirements-torch.txt ;; \
      *) echo "WITH_TORCH is $WITH_TORCH; it must be yes or no" >&2; exit 1 ;; \
    esac

RUN --mount=type=bind,from=wheel,source=/wheels,target=/mnt/wheels \
    pip install --no-cache-dir --no-deps /mnt/wheels/*.whl

# Nothing is written but to these three: the root file system may be read-only.
ENV TAM_DATA_DIR=/data TAM_CHECKPOINT_DIR=/checkpoints HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /data
EXPOSE 9090
STOPSIGNAL SIGTERM
# A second is what Label Studio itself waits for this answer; starting Python comes on top.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "tam_backend.server.health", "9090"]
ENTRYPOINT ["tam"]
CMD ["serve", "--host", "0.0.0.0", "--port", "9090"]
