"""``syncflow import opensora``."""

from __future__ import annotations

import argparse
import sys

SUMMARY = "build a model folder from Open-Sora v1.2, T5 and optionally Encodec"
EXAMPLE = (
    "syncflow import opensora --stdit hpcai-tech/OpenSora-STDiT-v3 "
    "--vae hpcai-tech/OpenSora-VAE-v1.2 --text DeepFloyd/t5-v1_1-xxl --allow-pickle "
    "--out models/opensora"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    where = "file, folder or hub id (owner/name or owner/name@revision)"
    add("--stdit", required=True, metavar="WHERE", help=f"the video tower: {where}")
    add("--vae", required=True, metavar="WHERE", help="video VAE: file, folder or hub id")
    add("--text", required=True, metavar="WHERE", help="T5: a folder or hub id")
    add("--out", required=True, metavar="DIR", help="model folder to create")
    what = "'fresh' (default), a finished run of an audio VAE, or an Encodec to start one from"
    add("--audio", default="fresh", metavar="WHERE", help=what)
    what = "attention axis of the adaptors, by which the sound reads the picture (default: full, "
    what += "the paper's)"
    add("--axis", choices=("full", "temporal", "none"), default="full", help=what)
    what = "precision of T5 (default: bfloat16, 9.5 GB for XXL; int8 is half of that)"
    add("--text-precision", choices=("float32", "bfloat16", "int8"), default="bfloat16", help=what)
    what = "data type of the towers (default: that of the video tower's weights)"
    add("--dtype", choices=("float32", "bfloat16"), help=what)
    what = "reproduce Open-Sora's defects, to get its exact numbers"
    add("--compat", choices=("opensora-1.2",), help=what)
    what = "also read PyTorch pickles; only tensors, no code (weights_only)"
    add("--allow-pickle", action="store_true", help=what)


def run(args: argparse.Namespace) -> None:
    import torch

    from syncflow.interop.importing import opensora_folder

    report = opensora_folder(
        args.stdit,
        args.vae,
        args.text,
        args.out,
        audio=args.audio,
        axis=args.axis,
        precision=args.text_precision,
        dtype=getattr(torch, args.dtype) if args.dtype else None,
        compat=args.compat,
        allow_pickle=args.allow_pickle,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(report)
