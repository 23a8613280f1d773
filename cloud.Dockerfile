# The core: ingest worker, console and API, schema; the command decides which.   docker build -f cloud.Dockerfile -t citybrain-core .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/citybrain
COPY locks/cloud.txt /tmp/lock.txt
RUN pip --python /opt/citybrain/bin/python install --require-hashes -r /tmp/lock.txt
WORKDIR /src
COPY . .
RUN pip --python /opt/citybrain/bin/python install --no-deps . \
 && sh deploy/trim.sh /opt/citybrain/lib/python3*/site-packages

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="citybrain core" org.opencontainers.image.licenses="Apache-2.0"
# A volume that is empty takes over the owner of the folder it is put on
RUN useradd --system --uid 10002 --home-dir /var/lib/citybrain --create-home --shell /usr/sbin/nologin citybrain \
 && cd /var/lib && mkdir -m 700 citybrain-ca citybrain-broker && mkdir -m 755 citybrain-label \
 && chown citybrain citybrain-ca citybrain-broker citybrain-label
COPY --from=build /opt/citybrain /opt/citybrain
COPY --from=build /src/LICENSE /src/NOTICE /usr/share/doc/citybrain/
COPY --from=build --chmod=755 /src/deploy/core-entrypoint.sh /usr/local/bin/core-entrypoint
COPY --from=build --chmod=755 /src/deploy/core-prepare.sh /usr/local/bin/core-prepare
# NiceGUI keeps a folder beside itself; the core stores nothing there
ENV PATH=/opt/citybrain/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 NICEGUI_STORAGE_PATH=/tmp/nicegui
USER citybrain
WORKDIR /var/lib/citybrain
VOLUME /var/lib/citybrain
STOPSIGNAL SIGTERM
ENTRYPOINT ["core-entrypoint"]
CMD ["python", "-m", "cloud.app", "/etc/citybrain/core.toml"]
