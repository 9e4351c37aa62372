# Sandyard's one image. Alone it is the embedded form, with the engine's socket mounted; compose.yaml runs it as api, runner
# and proxy. Building it needs Debian and the Python package index:
#   DEBIAN_MIRROR    another Debian mirror
#   PIP_INDEX_URL    another package index
#   CA_CERTIFICATES  certificates (PEM) of a proxy that breaks TLS up, for the build only
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS base
ARG DEBIAN_MIRROR=
# nftables: the runner starts helpers from this image to set the network rules of sandboxes on the engine's machine.
RUN set -eu; \
    if [ -n "$DEBIAN_MIRROR" ]; then \
      find /etc/apt -name '*.list' -o -name '*.sources' | xargs -r sed -i "s|https\?://deb.debian.org/debian\b|$DEBIAN_MIRROR|"; \
    fi; \
    printf 'path-exclude=%s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' '/usr/share/locale/*' \
      '/usr/share/lintian/*' >/etc/dpkg/dpkg.cfg.d/sandyard; \
    apt-get update -qq; \
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      ca-certificates nftables python3 >/dev/null; \
    apt-get clean; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

FROM base AS build
ARG CA_CERTIFICATES=
ARG PIP_INDEX_URL=
RUN set -eu; \
    apt-get update -qq; \
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; \
    if [ -n "$CA_CERTIFICATES" ]; then \
      printf '%s\n' "$CA_CERTIFICATES" >/usr/local/share/ca-certificates/build.crt; update-ca-certificates >/dev/null 2>&1; \
    fi; \
    python3 -m venv --without-pip /opt/venv; \
    python3 -m venv /tmp/pip
WORKDIR /src
COPY requirements/base.txt requirements/build.txt requirements/
RUN set -eu; \
    if [ -z "$PIP_INDEX_URL" ]; then unset PIP_INDEX_URL; fi; \
    export PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1; \
    /tmp/pip/bin/pip install --quiet --require-hashes -r requirements/build.txt; \
    /tmp/pip/bin/pip --python /opt/venv/bin/python install --quiet --require-hashes --only-binary :all: -r requirements/base.txt
COPY . .
RUN set -eu; \
    /tmp/pip/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir /tmp/wheels .; \
    /tmp/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-deps --no-index /tmp/wheels/*.whl; \
    # What only developers of those packages use, and made-up names in seventy languages.
    find /opt/venv/lib/python3*/site-packages/faker/providers -depth -type d -name '??_*' ! -name en_US -exec rm -rf {} +; \
    find /opt/venv -depth -type d \( -name tests -o -name testing -o -name test \) \
      -path '*/site-packages/*' -not -path '*/sqlalchemy/*' -exec rm -rf {} +; \
    find /opt/venv \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.pyi' \) -delete; \
    /opt/venv/bin/python -m compileall -q /opt/venv; \
    /opt/venv/bin/python -m sandyard_runner.daemon_bundle /var/lib/sandyard/bundles

FROM base
COPY --from=build /opt/venv /opt/venv
COPY --from=build /var/lib/sandyard/bundles /var/lib/sandyard/bundles
COPY images/stack/ /usr/local/bin/
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    SANDYARD_DATA_DIR=/var/lib/sandyard
# Sandboxes share the bundle and their doors with us through this volume; a new one starts with the bundle in it.
VOLUME /var/lib/sandyard
EXPOSE 3986 2222
ENTRYPOINT ["sandyard"]
CMD ["up", "--host", "0.0.0.0", "--runtime", "docker"]
