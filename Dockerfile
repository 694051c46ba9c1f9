# gpunn with CUDA from NVIDIA's wheels; the driver comes from the host's NVIDIA container toolkit.
#   docker build -t gpunn .                                  for a driver with CUDA 13
#   docker build -t gpunn --build-arg EXTRA=cuda12 .         for CUDA 12; an empty EXTRA is for the CPU
#   docker run --rm --gpus all -v gpunn-cache:/cache -v "$PWD:/data" --user "$(id -u):$(id -g)" gpunn train mnist

# Any image with a Python 3.11 or newer, with venv, as python3.
ARG BASE=python:3.12-slim

FROM ${BASE} AS builder
ARG EXTRA=cuda13
WORKDIR /source
# Install the dependencies first, from pyproject.toml alone: a change of the code does not load them again.
COPY pyproject.toml README.md LICENSE ./
COPY gpunn/__init__.py gpunn/version.py gpunn/
RUN python3 -m venv /opt/gpunn \
    && /opt/gpunn/bin/python -m pip install --no-cache-dir ".${EXTRA:+[${EXTRA}]}"
COPY gpunn gpunn
# Leave out pip, the packages' own tests, and static libraries, which only a linker reads. Keep the headers, which NVRTC
# needs, and the byte code, which the user of the image cannot write.
RUN /opt/gpunn/bin/python -m pip install --no-cache-dir --no-deps --force-reinstall . \
    && /opt/gpunn/bin/python -m pip uninstall --yes --quiet pip \
    && find /opt/gpunn -name '*.a' -delete \
    && find /opt/gpunn -type d \( -path '*/numpy/*/tests' -o -path '*/matplotlib/tests' \) -prune -exec rm -rf {} +

FROM ${BASE}
LABEL org.opencontainers.image.title="gpunn" \
    org.opencontainers.image.description="Neural networks trained straight from their equations" \
    org.opencontainers.image.licenses="MIT"
COPY --from=builder /opt/gpunn /opt/gpunn
# Compiled kernels and downloaded data sets outlive a container. --user may name any user: all share the data, and each has
# kernels of their own, which CuPy lets nobody else read.
RUN mkdir -p /cache/gpunn /data && chmod 1777 /cache /cache/gpunn /data
ENV PATH=/opt/gpunn/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/cache \
    XDG_CACHE_HOME=/cache \
    CUPY_CACHE_DIR=/cache/cupy \
    GPUNN_IMAGE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME /cache
WORKDIR /data
USER 1000:1000
# Give each user a home of their own on the volume: matplotlib of one user makes folders that another cannot write into.
ENTRYPOINT ["/bin/sh", "-c", "u=$(id -u); export HOME=\"$HOME/home-$u\" CUPY_CACHE_DIR=\"$CUPY_CACHE_DIR-$u\" MPLCONFIGDIR=\"$HOME/home-$u/matplotlib\"; mkdir -p \"$HOME\" 2>/dev/null; exec gpunn \"$@\"", "gpunn"]
CMD ["--help"]
