# The agent of a gateway.   docker build -f edge.Dockerfile -t citybrain-edge .
# With cameras:             docker build -f edge.Dockerfile --build-arg EXTRA=vision -t citybrain-edge:vision .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG EXTRA=edge
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/citybrain
COPY locks/${EXTRA}.txt /tmp/lock.txt
RUN pip --python /opt/citybrain/bin/python install --no-compile --require-hashes -r /tmp/lock.txt
WORKDIR /src
COPY . .
RUN pip --python /opt/citybrain/bin/python install --no-compile --no-deps . \
 && sh deploy/trim.sh /opt/citybrain/lib/python3*/site-packages
# Byte code of what the agent loads, and of nothing else
WORKDIR /
RUN /opt/citybrain/bin/python -c "import citybrain_cli.main, edge.agent, edge.connectors.modbus_bus, edge.connectors.dlt645_bus, edge.connectors.hj212_server"

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="citybrain edge agent" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --groups dialout,video --home-dir /var/lib/citybrain --create-home --shell /usr/sbin/nologin citybrain
COPY --from=build /opt/citybrain /opt/citybrain
COPY --from=build /src/LICENSE /src/NOTICE /usr/share/doc/citybrain/
COPY --from=build --chmod=755 /src/deploy/edge-entrypoint.sh /usr/local/bin/edge-entrypoint
ENV PATH=/opt/citybrain/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER citybrain
WORKDIR /var/lib/citybrain
VOLUME /var/lib/citybrain
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["citybrain", "edge", "status", "/etc/citybrain/agent.toml"]
ENTRYPOINT ["edge-entrypoint"]
CMD ["citybrain", "edge", "run", "/etc/citybrain/agent.toml"]
