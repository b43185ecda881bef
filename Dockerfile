# A server of the shipped library, run by a user without rights; see docs/containers.md.
#
#   docker build -t palate .                                    for CPUs
#   docker build -t palate:cuda --build-arg DEVICE=cuda .       with torch's libraries of CUDA
#   docker run --rm -v palate:/var/lib/palate palate keys issue --label me
#   docker run -v palate:/var/lib/palate -p 127.0.0.1:8000:8000 palate
FROM python:3.11-slim AS build
ARG DEVICE=cpu
RUN python -m venv /opt/palate
COPY locks /src/locks
# torch's own index has its CPU builds; whatever an index gives, only files with these hashes are taken
RUN case "$DEVICE" in cpu) torch=torch-cpu ;; cuda) torch=torch ;; \
    *) echo "DEVICE is cpu or cuda, not '$DEVICE'" >&2; exit 1 ;; esac \
    && /opt/palate/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes \
    --extra-index-url https://download.pytorch.org/whl/cpu -r /src/locks/$torch.txt -r /src/locks/run.txt
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
COPY libraries/smollm2-135m /src/libraries/smollm2-135m
RUN /opt/palate/bin/pip install --no-cache-dir --no-deps --no-build-isolation /src

FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/palate palate \
    && chmod 700 /var/lib/palate
COPY --from=build /opt/palate /opt/palate
USER 10001
WORKDIR /var/lib/palate
VOLUME /var/lib/palate
ENV PALATE_DATABASE=users.db HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8000
HEALTHCHECK --start-period=600s --interval=30s --timeout=5s CMD ["/opt/palate/bin/python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["/opt/palate/bin/palate"]
CMD ["serve", "smollm2-135m", "--host", "0.0.0.0"]
