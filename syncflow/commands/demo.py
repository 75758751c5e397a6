"""``syncflow demo``: a page to try a model on."""

from __future__ import annotations

import argparse

from syncflow import extras
from syncflow.commands import options

SUMMARY = "serve a web page for generating clips and audio for videos"
EXAMPLE = "syncflow demo --port 7860"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    options.add_model(parser)
    what = "address to listen on (default 127.0.0.1, this machine only; 0.0.0.0 for the network)"
    add("--host", default="127.0.0.1", help=what)
    add("--port", type=options.port, default=7860, help="port to listen on (default 7860)")
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if available)")


def run(args: argparse.Namespace) -> None:
    extras.need("gradio", "the demo needs Gradio")
    import syncflow
    from syncflow.serving import address, demo

    address.check(args.host, args.port)
    model = syncflow.load(args.model, device=args.device)
    demo.serve(model, args.host, args.port)
