#!/usr/bin/env bash
# Everything that takes a GPU, in parts that fit a machine which is lent for minutes:
#
#   OUT=DIR bash benchmarks/gpu_lease.sh correct [SECONDS]   the kernels' tests, with every error's size
#   OUT=DIR bash benchmarks/gpu_lease.sh fast [SECONDS]      steps, clips, operators, blocks
#   OUT=DIR bash benchmarks/gpu_lease.sh train [SECONDS]     XL/2 stages 2 and 3, plain and by DeepSpeed
#   OUT=DIR bash benchmarks/gpu_lease.sh small [MINUTES]     trains the larger variant of the small model
#   OUT=DIR bash benchmarks/gpu_lease.sh compare [SECONDS]   torch.compile and other libraries
#   OUT=DIR bash benchmarks/gpu_lease.sh rehearse            all of them, tiny, on a CPU
#
# Results are files DIR/PART.json (DIR: build/lease where OUT is not set), whole whenever seen, a row
# the moment it is measured; a part that is started again goes on after its rows. Needs PyTorch with
# CUDA and, unless syncflow/_C*.so was built for it beforehand, nvcc; no network, no git. Packages that
# are missing are taken from wheels in the folder .whl, if it is there. PYTHON names the interpreter.
# `python -m benchmarks.gpu.collect DIR` files the results. Ends with 1 if a row failed.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
part=${1:-}
case $part in
    correct | fast | train | small | compare | rehearse) ;;
    *) echo "usage: OUT=DIR bash benchmarks/gpu_lease.sh correct|fast|train|small|compare|rehearse" >&2; exit 2 ;;
esac
out=${OUT:-build/lease}
mkdir -p "$out" build
export PYTHONUNBUFFERED=1 CUBLAS_WORKSPACE_CONFIG=:4096:8
site=${TMPDIR:-/tmp}/syncflow-lease-site
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ $part != rehearse ] && compgen -G ".whl/*.whl" >/dev/null && [ ! -e "$site/.done" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$site" .whl/*.whl && touch "$site/.done"
fi
[ -e "$site/.done" ] && export PYTHONPATH=$PYTHONPATH:$site

run() { # PART SECONDS [--tiny]
    # What an earlier call measured is gone on with, also where OUT is emptied between calls.
    [ -e "$out/$1.json" ] || [ ! -e "build/lease-kept/$1.json" ] || cp "build/lease-kept/$1.json" "$out/"
    [ -s build/off ] && export SYNCFLOW_OFF=$(cat build/off)
    "$python" -W ignore -m benchmarks.gpu.lease "$1" --out "$out" --seconds "$2" ${3:-} 2>&1 |
        tee -a "$out/log.txt"
    local status=${PIPESTATUS[0]}
    mkdir -p build/lease-kept && cp "$out/$1.json" build/lease-kept/ 2>/dev/null
    return "$status"
}

train() { # SECONDS [--tiny ...]
    # A row is a process of its own; all rows come back in one file.
    "$python" -W ignore -m benchmarks.gpu.train_table --out build/lease-train \
        --joined "$out/train.json" --seconds "$@" 2>&1 | tee -a "$out/log.txt"
    return "${PIPESTATUS[0]}"
}

small() { # MINUTES [--tiny ...]
    "$python" -W ignore -m benchmarks.gpu.small --out "$out/small" --minutes "$@" 2>&1 |
        tee -a "$out/log.txt"
    return "${PIPESTATUS[0]}"
}

if [ $part = rehearse ]; then
    rm -rf build/lease-kept build/lease-train build/off
    status=0
    for each in correct fast; do run $each 100 --tiny || status=1; done
    train 40 --tiny --rows stage2_plain,stage3_plain || status=1
    small 0.3 --tiny --workers 1 --compile off || status=1
    run compare 100 --tiny || status=1
    rm -rf build/lease-kept build/lease-train
    exit $status
fi

if ! "$python" -c 'from syncflow.ops import native; import sys; sys.exit(not native.status()["cuda_archs"] or not native.LOADED)' 2>/dev/null; then
    echo "build: csrc/ for this machine's GPU"
    SYNCFLOW_CUDA=1 timeout 280 "$python" setup.py operators 2>&1 | tee -a "$out/log.txt"
fi
case $part in
    train) train "${2:-150}" ;;
    small) small "${2:-4.5}" ;;
    *) run "$part" "${2:-150}" ;;
esac
