FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY guardrail guardrail
COPY rules rules
RUN python -m venv /opt/guardrail && GUARDRAIL_COMPILE=1 /opt/guardrail/bin/pip install --no-cache-dir ".[postgres,tracing]"

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/guardrail guardrail
COPY --from=build /opt/guardrail /opt/guardrail
ENV PATH=/opt/guardrail/bin:$PATH PYTHONUNBUFFERED=1
USER guardrail
WORKDIR /var/lib/guardrail
VOLUME /var/lib/guardrail
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/-/health', timeout=2)"]
# Inside a container only its own network can reach it; publish the port on purpose.
ENTRYPOINT ["guardrail"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080", "--audit", "sqlite:////var/lib/guardrail/audit.db"]
