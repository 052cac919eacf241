# docker build -t topgraft .
# docker run --read-only --tmpfs /tmp -p 8000:8000 -v "$PWD/runs/first:/run-folder:ro" -v "$PWD/token:/token:ro" topgraft
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY locks/core.txt locks/dev.txt locks/
RUN python -m venv /venv \
 && grep -hE '^(fastapi|starlette|uvicorn|python-multipart|prometheus.client)==' locks/dev.txt > /serve.txt \
 && /venv/bin/pip install --no-cache-dir -c locks/core.txt -c /serve.txt '.[serve]'

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 topgraft
COPY --from=build /venv /venv
USER 10001
ENV PATH=/venv/bin:$PATH TOPGRAFT_OFFLINE=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["topgraft", "serve"]
CMD ["/run-folder", "--host", "0.0.0.0", "--port", "8000", "--token-file", "/token"]
