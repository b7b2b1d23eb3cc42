"""What happens in a vLLM process before the first request: nothing, unless the user names the parsers."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harmony_plugin.settings import Settings
from harmony_plugin.vllm import UnsupportedVLLM, seams

from .asking import chat
from .conftest import composed, small


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, as vLLM's are."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HARMONY_")} | environment
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300, env=env, check=False
    )


def test_without_vllm() -> None:
    """The package imports, and register() is silent, where there is no vLLM."""
    done = run(
        "import sys; sys.modules['vllm'] = None; from harmony_plugin.vllm import register; register(); register()"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_vllm_without_lazy_registration() -> None:
    code = "import sys; sys.modules['vllm'] = None; from harmony_plugin.vllm import register; register()"
    done = run(code, "--reasoning-parser", "harmony")
    assert done.returncode != 0
    assert "cannot work with vLLM" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--reasoning-parser", "harmony"], True),
        (["--tool-call-parser=harmony"], True),
        (["--tool_call_parser", "harmony"], True),
        (["--reasoning-parser", "qwen3", "--served-model-name", "harmony"], False),
        (["harmony"], False),
        (["--reasoning-parser"], False),
    ],
)
def test_whether_the_command_line_names_us(arguments: list[str], named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import harmony_plugin.vllm as plugin

    monkeypatch.setattr("sys.argv", ["vllm", "serve", "model", *arguments])
    assert plugin._named_on_command_line() is named


def test_register_is_idempotent_lazy_and_silent() -> None:
    done = run(
        "import sys, vllm.reasoning, vllm.tool_parsers, vllm.parser.harmony as h, vllm.parser.abstract_parser as a\n"
        "before = (h.HarmonyParser, a.DelegatingParser); loaded = set(sys.modules)\n"
        "from harmony_plugin.vllm import register\n"
        "sys.stdout.write('['); register(); register(); sys.stdout.write(']')\n"
        "new = {n for n in sys.modules if n.startswith('harmony_plugin')} - loaded\n"
        "assert not [n for n in new if n.startswith('harmony_plugin.vllm.')], new\n"
        "assert (h.HarmonyParser, a.DelegatingParser) == before\n"
        "assert 'harmony' in vllm.reasoning.ReasoningParserManager.list_registered()\n"
        "assert 'harmony' in vllm.tool_parsers.ToolParserManager.list_registered()\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]")


def test_the_entry_point() -> None:
    from importlib.metadata import entry_points

    (entry,) = [each for each in entry_points(group="vllm.general_plugins") if each.name == "harmony"]
    import harmony_plugin.vllm

    assert entry.load() is harmony_plugin.vllm.register


def test_named_parsers_take_the_place_of_vllms() -> None:
    done = run(
        "import harmony_plugin.vllm as ours; ours.register()\n"
        "from vllm.parser.parser_manager import ParserManager as m\n"
        "stock = m.get_parser(reasoning_parser_name='openai_gptoss', is_harmony=True)\n"
        "assert stock.__module__ == 'vllm.parser.harmony', stock\n"
        "named = m.get_parser(reasoning_parser_name='harmony', is_harmony=True)\n"
        "assert named.__module__ == 'harmony_plugin.vllm.parsers' and issubclass(named, stock), named\n"
        "other = m.get_parser(reasoning_parser_name='harmony')\n"
        "assert other.__mro__[1].__module__ == 'harmony_plugin.vllm.parsers', other.__mro__\n"
    )
    assert done.returncode == 0, done.stderr


def vllms_own(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of vLLM's Harmony parser as vLLM has it, whatever this process has rebound, to break for one test."""
    import vllm.parser.harmony as module

    stock = next(each for each in module.HarmonyParser.__mro__ if each.__module__ == module.__name__)
    monkeypatch.setattr(module, "HarmonyParser", stock)
    return module


@pytest.mark.parametrize(
    ("owner", "name", "value", "missing"),
    [
        ("HarmonyParser", "flush", None, "vllm.parser.harmony.HarmonyParser.flush"),
        ("HarmonyParser", "process_chunk", None, "vllm.parser.harmony.HarmonyParser.process_chunk"),
        ("", "Segment", None, "vllm.parser.harmony.Segment"),
        ("", "Segment", str, "Segment(channel, recipient, delta, completed_message)"),
        ("HarmonyParser", "parse", lambda self, output: None, "parameter model_output_token_ids"),
    ],
)
def test_each_missing_seam_is_named(
    owner: str, name: str, value: Any, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = vllms_own(monkeypatch)
    target = getattr(module, owner) if owner else module
    if value is None:
        monkeypatch.delattr(target, name)
    else:
        monkeypatch.setattr(target, name, value)
    with pytest.raises(UnsupportedVLLM) as error:
        seams.Seams()
    assert missing in str(error.value)
    assert "Known to work: vLLM 0." in str(error.value)
    assert "--reasoning-parser openai_gptoss" in str(error.value)


#: What is vLLM's own in our parsers, in any release: looked at, and of no effect on how replies are split.
#: A new name here wants a look: does it split, or count, or ask for what only vLLM's own splitting knows?
INHERITED = {
    # Parts of vLLM's own splitting, which nothing calls: `parse`, `parse_delta`, `process_chunk` and `flush` are ours.
    *("_append_unstreamed_tool_args", "_extract_content_ids", "_extract_tool_calls", "_extract_tool_calls_streaming"),
    *("_flush_engine_parsers", "_get_function_name", "_harmony_parser", "_in_reasoning_phase", "_in_tool_call_phase"),
    *("_initialize_history_tool_call_cnt", "_is_reasoning_end_streaming", "_is_reasoning_token", "_make_tool_call_id"),
    *("_normalize_recipient", "_poll_completed_message", "finalize_generation", "set_history_tool_call_count"),
    # What hands over to the two parsers, which are ours.
    *("extract_content_ids", "extract_reasoning", "extract_reasoning_streaming", "extract_tool_calls"),
    *("extract_tool_calls_streaming", "find_reasoning_end_offset", "is_reasoning_end", "is_reasoning_end_streaming"),
    *("reasoning_parser", "reasoning_parser_cls", "tool_parser", "tool_parser_cls", "vocab", "tool_strict_level"),
    # What is asked of a reasoning parser and a tool parser beside splitting: grammars, and what vLLM's defaults say.
    *("adjust_initial_state_from_prompt", "prepare_structured_tag", "set_prompt_token_ids", "always_adjust_request"),
    *("default_tool_strict_level", "get_remaining_unstreamed_args", "get_structural_tag", "structural_tag_model"),
    "supports_token_phase_classification",
}


@pytest.mark.parametrize("name", ["HarmonyParser", "DelegatingParser", "HarmonyReasoningParser", "HarmonyToolParser"])
def test_what_is_inherited_is_known(name: str) -> None:
    """A method that a release of vLLM adds shows here."""
    from harmony_plugin.vllm import parsers

    ours: set[str] = set()
    theirs: set[str] = set()
    for owner in getattr(parsers, name).__mro__:
        names = {each for each in vars(owner) if not each.startswith(("__", "_abc_"))}
        if owner.__module__.startswith("harmony_plugin."):
            ours |= names
        elif owner.__module__.startswith("vllm."):
            theirs |= names
    assert theirs
    assert theirs - ours <= INHERITED


def test_a_missing_seam_of_the_serving_layer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm.entrypoints.anthropic.serving as serving

    seams.check_serving()
    monkeypatch.delattr(serving.AnthropicServingMessages, "messages_full_converter")
    with pytest.raises(UnsupportedVLLM, match=r"AnthropicServingMessages\.messages_full_converter is missing"):
        seams.check_serving()


def test_a_missing_seam_is_one_clear_error_at_start_up() -> None:
    """The command line names us: register() says what is missing. Else it says nothing."""
    code = (
        "import sys, vllm.parser.harmony as h; del h.HarmonyParser.flush\n"
        "from harmony_plugin.vllm import register; register(); print('not named: silent', flush=True)\n"
        "sys.argv.append('--reasoning-parser=harmony'); register()"
    )
    done = run(code, "serve", "m")
    assert done.returncode != 0
    assert "not named: silent" in done.stdout
    assert "UnsupportedVLLM: harmony-plugin cannot work with vLLM" in done.stderr.splitlines()[-1]


def test_a_wrong_setting_is_an_error_at_start_up() -> None:
    code = "from harmony_plugin.vllm import register; register()"
    done = run(code, "--reasoning-parser", "harmony", HARMONY_COMMENTARY="nowhere")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        "ValueError: HARMONY_COMMENTARY='nowhere': it is one of content, reasoning, drop"
    )


def test_settings_that_vllms_prompts_cannot_say() -> None:
    from harmony_plugin.vllm.settings import guided

    assert not guided(Settings())
    assert guided(Settings(prompts="guide"))
    assert guided(Settings(current_date="none"))
    with pytest.raises(ValueError, match="HARMONY_MODEL_IDENTITY needs HARMONY_PROMPTS=guide"):
        guided(Settings(model_identity="I", prompts="vllm"))


def test_limits_of_the_server() -> None:
    from harmony_plugin.vllm.settings import Limits, limits_of_server

    assert limits_of_server(Settings()) == Limits("free", None)
    assert limits_of_server(Settings(headers="constrain", max_reasoning_tokens=500)) == Limits("constrain", 500)


def test_headers_that_cannot_be_held_are_an_error_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from harmony_plugin.vllm import constraints
    from harmony_plugin.vllm.settings import Limits

    monkeypatch.setattr(constraints.grammar, "available", lambda: False)
    constraints.check(Limits("free", 5))
    with pytest.raises(ValueError, match="HARMONY_HEADERS=constrain: this vLLM"):
        constraints.check(Limits("constrain"))


def test_a_tokenizer_without_markers(parser_class: Any) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(ValueError, match=r"not a Harmony vocabulary.*<\|start\|>"):
        parser_class(bare, None)


def test_other_models_parsers_stay_as_they_are() -> None:
    """Loading the plugin changes no parser that is composed without it."""
    composed(gpt_oss=False)
    from vllm.parser.parser_manager import ParserManager

    hermes = ParserManager.get_parser(tool_parser_name="hermes", enable_auto_tools=True)
    from vllm.parser.abstract_parser import DelegatingParser

    assert DelegatingParser.__module__ == "harmony_plugin.vllm.parsers"
    stock = DelegatingParser.__mro__[2]
    assert stock.__module__ == "vllm.parser.abstract_parser"
    assert stock in hermes.__bases__
    for name in ("__init__", "parse", "parse_delta", "adjust_request"):
        assert getattr(hermes, name) is getattr(stock, name)
    assert hermes(small(), None).parse("Hi", chat())[1] == "Hi"


def test_half_a_pair_is_refused() -> None:
    composed(gpt_oss=False)
    from vllm.parser.parser_manager import ParserManager

    with pytest.raises(TypeError, match=r"harmony cannot be combined with .*Hermes"):
        ParserManager.get_parser(tool_parser_name="hermes", reasoning_parser_name="harmony", enable_auto_tools=True)


def test_a_parser_of_no_parts_stays_as_it_is(tokenizer: Any) -> None:
    """A subclass with ways of its own, made in a process that has loaded the plugin: nothing of ours is in it."""
    composed(gpt_oss=False)
    from vllm.parser.abstract_parser import DelegatingParser

    from harmony_plugin.vllm.parsers import _is_ours

    class Mine(DelegatingParser):
        def parse(self, *args: Any, **kwargs: Any) -> Any:
            return None, "mine", None

    class Yours(Mine):
        tool_parser_cls = None

    for each in (Mine, Yours):
        assert not _is_ours(each)
        assert not any(base.__module__.startswith("harmony_plugin") for base in each.__mro__)
        assert each(small(), None).parse("Hi", chat())[1] == "mine"
    assert _is_ours(composed(gpt_oss=False))
    assert _is_ours(composed(gpt_oss=True))


def test_other_models_parsers_are_not_ours() -> None:
    composed(gpt_oss=False)
    from vllm.parser.parser_manager import ParserManager

    from harmony_plugin.vllm.parsers import _is_ours

    assert not _is_ours(ParserManager.get_parser(tool_parser_name="hermes", enable_auto_tools=True))
    assert not _is_ours(None)


@pytest.mark.parametrize(("value", "says"), [("1", True), ("0", False), ("", False)])
def test_the_rust_front_end_is_told_of_first(value: str, says: bool) -> None:
    """It passes Python parsers by; what vLLM says of it later is that no parser harmony is registered."""
    code = "from harmony_plugin.vllm import register; register(); register()"
    done = run(
        code, "serve", "m", "--reasoning-parser=harmony", VLLM_USE_RUST_FRONTEND=value, VLLM_RUST_FRONTEND_PATH=""
    )
    lines = [line for line in done.stderr.splitlines() if "VLLM_USE_RUST_FRONTEND" in line]
    assert len(lines) == (1 if says else 0), done.stderr
    if says:
        assert "harmony-plugin" in lines[0]
        assert "VLLM_USE_RUST_FRONTEND=0" in lines[0]


def test_the_rust_front_end_is_not_told_of_where_harmony_is_not_named() -> None:
    done = run("from harmony_plugin.vllm import register; register()", "serve", "m", VLLM_USE_RUST_FRONTEND="1")
    assert done.stderr.count("harmony-plugin") == 0


# What the wrappers around the serving layer count on.


@pytest.mark.parametrize(
    ("method", "first"),
    [
        ("chat_completion_full_generator", ["self", "request", "result_generator"]),
        ("chat_completion_stream_generator", ["self", "request", "result_generator"]),
        (
            "chat_completion_full_generator_batch",
            ["self", "request", "generators", "request_id", "model_name", "all_conversations", "tokenizer"],
        ),
        ("derender_chat_response", ["self", "request"]),
        ("messages_full_converter", ["self", "generator"]),
        ("message_stream_converter", ["self", "generator"]),
        ("append_output", ["self", "output"]),
        ("responses_full_generator", ["self", "request"]),
        ("from_new_request", ["cls", "tokenizer", "request"]),
    ],
)
def test_signatures_of_what_is_wrapped(method: str, first: list[str]) -> None:
    assert list(inspect.signature(vllms_method(method)).parameters)[: len(first)] == first


@pytest.mark.parametrize(
    "method",
    [
        "chat_completion_full_generator",
        "chat_completion_stream_generator",
        "chat_completion_full_generator_batch",
    ],
)
def test_logprobs_are_made_right_before_their_tokens_are_parsed(method: str) -> None:
    """Nothing else can run in between: the parser is handed the ones that were made last."""
    # 0.33 streams through a method of that name, without serializing.
    code = inspect.getsource(vllms_method(f"{method}_raw") or vllms_method(method))
    between = code[code.index("_create_chat_logprobs(") :]
    parsed = re.search(r"\.(?:parse|parse_delta|step)\(\n", between)
    assert parsed is not None
    assert not re.search(r"\b(?:await|yield|async)\b", between[: parsed.start()])


def vllms_method(name: str) -> Any:
    """A method of vLLM's serving layer that is wrapped, as vLLM has it; a neighbour of one; or None."""
    wanted = [each for each in (*seams.SERVING, *seams.SERVING_WHERE_THERE) if each[2] in name]
    module, owner, _ = max(wanted, key=lambda each: len(each[2]))
    method = inspect.getattr_static(getattr(importlib.import_module(module), owner), name, None)
    return inspect.unwrap(method.__func__ if isinstance(method, classmethod) else method) if method else None


# Endpoints

#: Endpoints of vLLM whose replies the plugin splits. Each stands in docs/vllm.md's table, and has its end-to-end test.
SPLIT = {
    "/v1/chat/completions",
    "/v1/chat/completions/batch",
    "/v1/chat/completions/derender",
    "/v1/messages",
    "/v1/responses",
    "/v1/responses/{response_id}",
    "/cohere/v2/chat",
    "/invocations",
}
#: All others: they give out no split reply.
OTHERS = {
    *("/abort_requests", "/collective_rpc", "/docs", "/fault_tolerance/apply", "/fault_tolerance/status", "/health"),
    *("/finish_weight_update", "/get_world_size", "/init_weight_transfer_engine", "/is_paused", "/pause", "/resume"),
    *("/is_scaling_elastic_ep", "/is_sleeping", "/kv_event_sources", "/load", "/ping", "/ready", "/readyz", "/version"),
    *("/release_kv_cache_memory", "/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache", "/server_info"),
    *("/scale_elastic_ep", "/shutdown_weight_transfer_engine", "/sleep", "/wake_up", "/start_draft_weight_update"),
    *("/start_profile", "/stop_profile", "/start_weight_update", "/update_weight_version", "/update_weights"),
    *("/weight_checker", "/weight_info", "/v1/models", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
    *("/classify", "/pooling", "/rerank", "/score", "/v1/rerank", "/v1/score", "/v2/rerank", "/v1/embeddings"),
    *("/v2/embed", "/generative_scoring", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/realtime"),
    *("/tokenize", "/detokenize", "/tokenizer_info", "/v1/messages/count_tokens", "/v1/responses/{response_id}/cancel"),
    *("/v1/completions", "/v1/completions/derender", "/v1/completions/render", "/v1/chat/completions/render"),
    *("/v1/messages/render", "/v1/responses/render", "/cohere/v2/chat/render", "/inference/v1/generate"),
    *("/v1/systemone", "/v1/decisions", "/inference/v1/abort_requests"),
}


def test_every_endpoint_of_vllm_is_known() -> None:
    """A new one shows here: find out whether it gives out a split reply, and put it into a set, the docs and a test."""
    import vllm

    (package,) = vllm.__path__
    methods = r"@\w*(?:router|app)\.(?:get|post|put|delete|head|websocket|api_route)|\.add_api_route"
    route = re.compile(rf'(?:{methods})\(\s*"([^"]+)"')
    found = {
        path for file in Path(package, "entrypoints").rglob("*.py") for path in route.findall(file.read_text("utf-8"))
    }
    assert len(found) > 50
    assert found <= SPLIT | OTHERS, found - SPLIT - OTHERS
    assert found >= SPLIT
    documented = (Path(__file__).parents[2] / "docs" / "vllm.md").read_text("utf-8")
    assert [path for path in sorted(SPLIT) if f"`{path}`" not in documented] == []
