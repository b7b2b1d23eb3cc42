"""From settings to a listening server. Knows the command line and uvicorn; every way to fail is one line and an exit
code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

import uvicorn

from .. import ProcessorFactory
from .app import create_app, create_engine
from .settings import SettingsError, complain, read_settings

__all__ = ["main"]

WRONG_SETTINGS = 2
NO_MODEL = 1
GRACE = 5  # seconds that replies under way have when the server is told to stop


def main(
    argv: Sequence[str] | None = None,
    *,
    parser: argparse.ArgumentParser | None = None,
    hook: Callable[[argparse.Namespace], ProcessorFactory | None] | None = None,
) -> None:
    """Run the server until it is told to stop.

    :param parser: with more flags than the stock server's.
    :param hook: given the flags, what `HarmonyChatHandler(logits_processors=...)` gets.
    """
    try:
        chosen = read_settings(argv, parser=parser)
        factory = hook(chosen.arguments) if hook is not None else None
    except SettingsError as error:
        complain(str(error))
        sys.exit(WRONG_SETTINGS)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(name)s: %(message)s")
    engine = create_engine(chosen.models, chosen.server.max_queue, factory)
    app = create_app(engine, chosen.server)
    config = uvicorn.Config(
        app,
        host=chosen.host,
        port=chosen.port,
        ssl_keyfile=chosen.server.ssl_keyfile,
        ssl_certfile=chosen.server.ssl_certfile,
        timeout_graceful_shutdown=GRACE,
    )
    try:
        config.load()  # certificates and all: before a large model is loaded
    except (OSError, ValueError) as error:
        complain(f"cannot serve: {error}")
        sys.exit(WRONG_SETTINGS)
    try:
        engine.load()
    except Exception as error:
        said = " ".join(str(error).split())
        if said.startswith("Failed to load model"):
            said += " (is the file a GGUF, and whole? `--verbose true` shows what llama.cpp says)"
        complain(f"cannot serve model {chosen.models[0].model}: {said}")
        sys.exit(NO_MODEL)
    try:
        uvicorn.Server(config).run()
    finally:
        engine.close()
