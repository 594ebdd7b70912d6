# GLSCL-JAX for one kind of device:
#
#   docker build -t glscl .                           # NVIDIA: needs the host's driver alone
#   docker build -t glscl --build-arg DEVICE=tpu .
#   docker build -t glscl --build-arg DEVICE=cpu .
#
#   docker run --rm --gpus=all --ipc=host -v /shared:/shared glscl \
#     python -m glscl_jax.train --config msrvtt --workdir /shared/runs/msrvtt
#
# Versions are those of requirements.lock; its markers take JAX by PYTHON. docs/training.md,
# "Several hosts", says what of this was run.
ARG PYTHON=3.12.8
ARG DEVICE=cuda

FROM python:${PYTHON}-slim-bookworm AS requirements
RUN python -m venv /opt/glscl
ENV PATH=/opt/glscl/bin:${PATH}
WORKDIR /src
COPY requirements.lock ./
RUN pip install --no-cache-dir -r requirements.lock

# CUDA and cuDNN come as wheels, of the versions that this JAX asks for.
FROM requirements AS cuda
RUN pip install --no-cache-dir -c requirements.lock "jax[cuda13]"

FROM requirements AS tpu
RUN pip install --no-cache-dir -c requirements.lock "jax[tpu]"

FROM requirements AS cpu

# hadolint ignore=DL3006
FROM ${DEVICE} AS package
WORKDIR /src
COPY . ./
RUN pip install --no-cache-dir --no-deps .

FROM python:${PYTHON}-slim-bookworm
# The number, so that Kubernetes can see that it is not root.
RUN useradd --uid 1000 --create-home glscl
COPY --from=package /opt/glscl /opt/glscl
# What the NVIDIA container toolkit is to bring in; of no meaning elsewhere.
ENV PATH=/opt/glscl/bin:${PATH} PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /home/glscl
# No shell in between: SIGTERM has to reach the program, which saves.
CMD ["python", "-m", "glscl_jax.train", "--help"]
