# vLLM with the plugin, from the package index alone. Where you use vLLM's own image, the last lines are enough:
#   FROM vllm/vllm-openai:v0.33.0
#   RUN pip install --no-deps harmony-plugin 'pydantic-settings>=2.7'
FROM python:3.12-slim-bookworm
# Triton compiles small programs when the server starts.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 harmony
# Wheels beside this file are taken before the index's: a harmony-plugin of your own.
RUN --mount=type=bind,target=/context python -m venv /opt/harmony \
    && /opt/harmony/bin/pip install --no-cache-dir --find-links /context 'harmony-plugin[vllm]~=0.1.0'
USER 10001
ENV PATH=/opt/harmony/bin:$PATH
EXPOSE 8000
ENTRYPOINT ["vllm", "serve"]
CMD ["openai/gpt-oss-20b", "--reasoning-parser", "harmony", "--tool-call-parser", "harmony", \
    "--enable-auto-tool-choice"]
HEALTHCHECK --start-period=20m --interval=10s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
