#!/usr/bin/env bash
# Builds an image on a machine without a container engine: as root, with buildah and a base made of Debian's packages.
# Where Docker runs, `docker build -f docker/IMAGE.Dockerfile .` does the same on the official base.
set -euo pipefail

usage() {
    cat >&2 <<USAGE
usage: docker/buildah.sh server|training|redis [GPU]

Builds idiolect-IMAGE from docker/IMAGE.Dockerfile; redis is Debian's own, in place of the compose file's image.
GPU is 1 or 0 (default 1); 0 builds the server for the CPU, as idiolect-server:cpu. Needs buildah and mmdebstrap,
and for the server, whose page npm builds, Node.js 20 or later: Debian's own is older, so this machine's is taken.
USAGE
    exit 2
}

image=${1:-} gpu=${2:-1}
[[ $# -le 2 && $image =~ ^(server|training|redis)$ && $gpu =~ ^[01]$ ]] || usage
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for tool in buildah mmdebstrap; do
    command -v "$tool" >/dev/null || { echo "buildah.sh: $tool not found" >&2; exit 1; }
done

# Neither user namespaces nor control groups are needed: a step runs in a chroot.
export BUILDAH_ISOLATION=chroot
certificates=/usr/local/share/ca-certificates trusted=/etc/ssl/certs/ca-certificates.crt

# Makes image NAME of Debian's PACKAGES, with the certificates that this machine trusts.
from_debian() {
    local name=$1 packages=$2 setup=$3 tar container
    if buildah inspect --type image "$name" >/dev/null 2>&1; then return; fi
    tar=$(mktemp --suffix=.tar)
    mmdebstrap --quiet --variant=minbase --include="ca-certificates,$packages" \
        --customize-hook="if [ -d $certificates ]; then cp -rL $certificates/. \"\$1\"$certificates; fi" \
        --customize-hook="chroot \"\$1\" update-ca-certificates >/dev/null" \
        --customize-hook="$setup" bookworm "$tar"
    container=$(buildah from scratch)
    buildah add -q "$container" "$tar" / >/dev/null
    rm "$tar"
    buildah commit -q --rm "$container" "$name" >/dev/null
}

if [[ $image == redis ]]; then
    from_debian docker.io/library/redis:7.4-alpine redis-server "chroot \"\$1\" install -d -o redis -g redis /data"
    exit
fi
# pip comes with certificates of its own, and would not know this machine's.
from_debian docker.io/library/python:3.11-slim-bookworm python3,python3-dev,python3-pip,python3-venv \
    "cd \"\$1\" && ln -s python3 usr/bin/python && printf '[global]\ncert = $trusted\n' >etc/pip.conf"

if [[ $image == server ]]; then
    for tool in node npm; do
        command -v "$tool" >/dev/null || { echo "buildah.sh: $tool not found" >&2; exit 1; }
    done
    node=$(readlink -f "$(command -v node)") npm=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
    from_debian docker.io/library/node:22-bookworm-slim libstdc++6 "cp '$node' \"\$1\"/usr/bin/node \
        && cp -r '$npm' \"\$1\"/usr/lib/npm && ln -s ../lib/npm/bin/npm-cli.js \"\$1\"/usr/bin/npm \
        && printf 'cafile=$trusted\n' >\"\$1\"/root/.npmrc"
fi

arguments=()
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS NPM_CONFIG_REGISTRY; do
    if [[ -n ${!name:-} ]]; then arguments+=(--build-arg "$name=${!name}"); fi
done
if [[ -d ${PIP_FIND_LINKS:-} ]]; then arguments+=(-v "$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro"); fi
tag=idiolect-$image
if [[ $image == server ]]; then
    arguments+=(--build-arg "GPU=$gpu")
    if [[ $gpu == 0 ]]; then tag=$tag:cpu; fi
fi
# A step that was done before is not done again; not without an overlay file system, where each would copy all before it.
layers=false
if [[ $(buildah info --format '{{.store.GraphDriverName}}') == overlay ]]; then layers=true; fi
buildah bud --pull-never --layers="$layers" --format docker "${arguments[@]}" \
    --ignorefile "$root/.dockerignore" -f "$root/docker/$image.Dockerfile" -t "$tag" "$root"
buildah images "$tag"
