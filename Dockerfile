FROM python:3.13.9-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
COPY bellwire bellwire
COPY workflows workflows
RUN python -m venv /opt/bellwire \
    && /opt/bellwire/bin/python -m pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[app]'

FROM python:3.13.9-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home bellwire
COPY --from=build /opt/bellwire /opt/bellwire
WORKDIR /app
COPY workflows workflows
COPY activities activities
COPY starter starter
COPY worker.py ./
ENV PATH=/opt/bellwire/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER bellwire
# SIGTERM stops the worker gracefully; give it BELLWIRE_SHUTDOWN_GRACE seconds before SIGKILL.
CMD ["python", "worker.py"]
