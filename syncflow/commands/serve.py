"""``syncflow serve``: the model behind OpenAI's video endpoints."""

from __future__ import annotations

import argparse
import os

from syncflow import extras
from syncflow.commands import options

SUMMARY = "serve a model over HTTP, in the form of OpenAI's video API"
EXAMPLE = "syncflow serve --port 8000"
_KEY = "SYNCFLOW_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    options.add_model(parser)
    what = "address to listen on (default 127.0.0.1, this machine only; 0.0.0.0 for the network)"
    add("--host", default="127.0.0.1", help=f"{what}; clients must send {_KEY} if it is set")
    add("--port", type=options.port, default=8000, help="port to listen on (default 8000)")
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if available)")


def run(args: argparse.Namespace) -> None:
    for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        extras.need(name, f"the server needs {name}")
    import syncflow
    from syncflow.serving import address, maker, videos_api

    address.check(args.host, args.port)
    model = syncflow.load(args.model, device=args.device)
    videos_api.serve(maker.Maker(model), args.host, args.port, os.environ.get(_KEY) or None)
