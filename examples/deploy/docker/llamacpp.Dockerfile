# The llama.cpp server. llama-cpp-python is built from its sources, for the machine that builds.
#   docker build -f llamacpp.Dockerfile -t harmony-plugin-llamacpp .
FROM python:3.12-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ cmake ninja-build
# Wheels beside this file are taken before the index's: llama-cpp-python built for a GPU, a harmony-plugin of your own.
RUN --mount=type=bind,target=/context python -m venv /opt/harmony \
    && /opt/harmony/bin/pip install --no-cache-dir --find-links /context 'harmony-plugin[llamacpp]~=0.1.0'

FROM python:3.12-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 harmony && mkdir /models /data && chown harmony /data
COPY --from=build /opt/harmony /opt/harmony
USER 10001
# Responses that later requests go on from.
VOLUME /data
EXPOSE 8000
# The server itself is process 1: it gets the SIGTERM that `docker stop` sends, and finishes what it has begun.
ENTRYPOINT ["/opt/harmony/bin/python", "-m", "harmony_plugin.llamacpp", "--host", "0.0.0.0"]
CMD ["--model", "/models/gpt-oss-20b.gguf"]
HEALTHCHECK --start-period=10m --interval=10s CMD ["/opt/harmony/bin/python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz')"]
