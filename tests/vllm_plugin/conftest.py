"""The vLLM plugin without a server: real vLLM classes and requests, real token ids, no engine.

The same tests run against other releases of vLLM by scripts/matrix.py, on their Python sources alone.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]


@functools.lru_cache(maxsize=1)
def o200k() -> Any:
    """A Hugging Face tokenizer with gpt-oss's vocabulary, made from the Harmony library."""
    from transformers import AutoTokenizer
    from vllm_rig.model import model_directory

    return AutoTokenizer.from_pretrained(model_directory("gpt_oss"))


@functools.lru_cache(maxsize=1)
def small() -> Any:
    """A tokenizer of another vocabulary: bytes, and Harmony's markers at ids of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>"])
    tokenizer.add_special_tokens([f"<|{kind}|>" for kind in MARKERS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=[f"<|{kind}|>" for kind in MARKERS]
    )


MARKERS = ("start", "end", "message", "channel", "constrain", "return", "call", "endoftext")


def composed(gpt_oss: bool, reasoning: bool = True, tools: bool = True, tokenizer: Any = None) -> Any:
    """The parser class that vLLM composes for these names."""
    from vllm.parser.parser_manager import ParserManager

    import harmony_plugin.vllm

    harmony_plugin.vllm.register()
    return ParserManager.get_parser(
        tool_parser_name="harmony" if tools else None,
        reasoning_parser_name="harmony" if reasoning else None,
        enable_auto_tools=tools,
        is_harmony=gpt_oss,
    )


@pytest.fixture(params=["gpt_oss", "other"])
def parser_class(request: pytest.FixtureRequest) -> Any:
    """vLLM's parser with both of ours in it: for gpt-oss, and for any other model."""
    return composed(request.param == "gpt_oss")


@pytest.fixture
def tokenizer() -> Any:
    return o200k()
