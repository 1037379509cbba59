# pacslite in a container. The project's tests have no container runtime: build it and look before you rely on it.
FROM python:3.11-slim-bookworm

# ffmpeg makes the MP4s and pictures of videos.
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/pacslite
COPY pyproject.toml constraints.txt README.md ./
COPY pacslite ./pacslite
COPY migrations ./migrations
COPY conf ./conf
COPY docs ./docs
COPY CHANGELOG.md wsgi.py ./
RUN PIP_CONSTRAINT=/opt/pacslite/constraints.txt pip install --no-cache-dir . \
    && useradd --system --create-home --home-dir /var/lib/pacslite pacslite

USER pacslite
WORKDIR /var/lib/pacslite
ENV PACSLITE_DATA=/var/lib/pacslite/data
VOLUME /var/lib/pacslite/data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/live', timeout=4)"
# It listens on loopback: run it with --network host, behind a proxy with TLS (conf/nginx.conf). Users log in, see docs/operations.md.
CMD ["pacslite", "serve"]
