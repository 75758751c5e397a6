#!/usr/bin/env bash
# From raw files to the paper's tables on one node of GPUs. docs/paper.md has these commands word for
# word, and tests/test_paper_route.py runs them at tiny size.
set -euo pipefail
GPUS=${GPUS:-8}

torchrun --standalone --nproc_per_node $GPUS syncflow/train.py --config configs/audio_vae.json
syncflow import opensora --stdit hpcai-tech/OpenSora-STDiT-v3 --vae hpcai-tech/OpenSora-VAE-v1.2 \
  --text DeepFloyd/t5-v1_1-xxl --allow-pickle --audio runs/xl/audio_vae --out models/opensora
syncflow prepare vggsound.csv --layout vggsound --videos vggsound --model models/opensora \
  --split train --out data/latents_train
syncflow prepare vggsound.csv --layout vggsound --videos vggsound --model models/opensora \
  --split test --windows fixed --per-segment 1 --out data/latents_val
torchrun --standalone --nproc_per_node $GPUS syncflow/train.py --config configs/opensora/stage2.json
torchrun --standalone --nproc_per_node $GPUS syncflow/train.py --config configs/opensora/stage3.json
syncflow train --config configs/opensora/export.json
syncflow evaluate paper --model runs/opensora/model --data vggsound_test --networks networks.json \
  --clips 15000 --out runs/opensora/report
