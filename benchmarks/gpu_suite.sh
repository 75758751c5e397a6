#!/usr/bin/env bash
# Everything that takes a GPU, in one unattended run of under ten minutes: builds the kernels, tests
# them, times them against everything else that is installed, and writes
# benchmarks/results/<device>-<date>.json.
#
#   bash benchmarks/gpu_suite.sh             on a machine with an NVIDIA GPU, PyTorch and nvcc
#   bash benchmarks/gpu_suite.sh --steps=ops some steps; adds to the same day's file of the same kernels
#   bash benchmarks/gpu_suite.sh --dry-run   walks every step on a CPU; measures and writes nothing
#
# Needs no network. PYTHON names the interpreter (python3). Ends with 1 if a step failed.
set -uo pipefail
cd "$(dirname "$0")/.."
started=$(date +%s)
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
status=0

dry=0
for argument in "$@"; do
    case $argument in
        --dry-run) dry=1 ;;
        --minutes=* | --steps=*) ;;
        *) echo "usage: bash benchmarks/gpu_suite.sh [--dry-run] [--minutes=9] [--steps=ops,blocks]" >&2; exit 2 ;;
    esac
done

if [ $dry = 1 ]; then
    echo "build: skipped (dry run)"
    built=0
else
    echo "build: csrc/ for this machine's GPU"
    SYNCFLOW_CUDA=1 timeout 280 "$python" setup.py operators || status=1
    built=$(($(date +%s) - started))
    echo "build: ${built} s"
fi

"$python" -W ignore -m benchmarks.gpu.suite --started "$started" --build-seconds "$built" "$@" || status=1
exit $status
