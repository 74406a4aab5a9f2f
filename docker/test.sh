#!/bin/bash
# Builds the images without a registry of images; runs the same job in one container and in two, and trains on its shards.
#
#   docker/test.sh [worker] [trainer]        both by default; the trainer alone needs the worker's $WORK/data/one
#
# Needs root, Debian, and mmdebstrap, buildah, podman, runc (installed where missing). No daemon; all that is made is in
# $WORK, and goes with it, unless KEEP is set. WORK: a folder of its own (25 GB). EXTRAS: of setup.py.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
WORK=${WORK:-$(mktemp -d)}
EXTRAS=${EXTRAS:-pipeline}
[ $# -gt 0 ] || set -- worker trainer
[ "$(id -u)" -eq 0 ] || { echo "docker/test.sh: NOT TESTED: containers are built as root" >&2; exit 77; }
missing=()
for program in mmdebstrap buildah podman runc; do
    command -v "$program" > /dev/null || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
mkdir -p "$WORK/tmp" "$WORK/boot"
export TMPDIR=$WORK/tmp
container() { podman --root "$WORK/storage" --runroot "$WORK/run" --runtime runc --cgroup-manager cgroupfs "$@"; }
clean_up() {
    [ -z "${KEEP:-}" ] || return 0
    container rm --all --force > /dev/null 2>&1 || true
    container rmi --all --force > /dev/null 2>&1 || true
    rm -rf "$WORK"
}
trap clean_up EXIT

# The base: Debian's own Python.
if [ ! -e "$WORK/base.tar" ]; then
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,libglib2.0-0,python3,python3-venv \
        bookworm "$WORK/base.tar"
fi
container import --quiet "$WORK/base.tar" fineclip-base > /dev/null

options=(--format=docker --isolation=chroot --network=host --layers=false --volume /etc/ssl/certs:/etc/ssl/certs:ro)
for name in PIP_CERT PIP_INDEX_URL PIP_FIND_LINKS http_proxy https_proxy no_proxy; do
    [ -z "${!name:-}" ] || options+=(--env "$name=${!name}")
done
mkdir -p "$WORK/data" && chown 1000 "$WORK/data"
run() { # as a container without a network, of a user without rights
    container run --rm --no-healthcheck --network=none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --volume "$WORK/data:/data" "$@"
}

annotate() {
    run --hostname same fineclip-worker annotate 'scenes:120?split=test' "$1" --proposer manual --captioner rule --shard-size 10
}

worker() {
    # Beam's boot program, where Go is there to build it: else an image without.
    if command -v go > /dev/null; then
        GOBIN=$WORK/boot go install github.com/apache/beam/sdks/v2/python/container@v2.77.0 2> /dev/null \
            && mv "$WORK/boot/container" "$WORK/boot/boot" || echo "docker/test.sh: built without Beam's boot program" >&2
    fi
    printf 'FROM scratch\nCOPY . /opt/apache/beam\n' > "$WORK/boot.Dockerfile"
    container build --quiet --isolation=chroot -f "$WORK/boot.Dockerfile" -t fineclip-boot "$WORK/boot" > /dev/null

    container build "${options[@]}" -f "$repository/docker/worker.Dockerfile" --build-arg BASE=localhost/fineclip-base \
        --build-arg BOOT=localhost/fineclip-boot --build-arg EXTRAS="$EXTRAS" -t fineclip-worker "$repository"

    annotate /data/one
    annotate /data/two &
    local first=$!
    annotate /data/two
    wait "$first"
    sums() { (cd "$WORK/data/$1" && sha256sum -- *.tar *.parquet *.json); }
    diff <(sums one) <(sums two)
    [ "$(sums two | grep -c '\.tar$')" -eq 12 ]
    [ "$(find "$WORK/data/two/_run" -name '*.jsonl' | wc -l)" -eq 12 ] # two containers of one host name: each unit once
    echo "docker/test.sh: a job in one container and in two: the same $(sums one | wc -l) files"
    container rmi --force fineclip-worker > /dev/null # the trainer's needs the room
}

trainer() {
    [ -e "$WORK/data/one/dataset.json" ] || { echo "docker/test.sh: no data set: name worker too" >&2; exit 2; }
    container build "${options[@]}" -f "$repository/docker/trainer.Dockerfile" --build-arg BASE=localhost/fineclip-base \
        -t fineclip-trainer "$repository"
    run fineclip-trainer fineclip train /data/one --recipe mini --out /data/run --device cpu --workers 0 --stop-after 1
    [ -e "$WORK/data/run/last.pt" ]
    echo "docker/test.sh: a step of training"
}

for image in "$@"; do
    case $image in
        worker | trainer) "$image" ;;
        *) echo "docker/test.sh: $image: no such image; worker, trainer" >&2; exit 2 ;;
    esac
done
