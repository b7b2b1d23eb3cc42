"""What the server says of itself: to the person who starts it, under `/`, and as the list of its models.

Facts in, text and JSON out; knows no HTTP.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeAlias

from ...api.hosted import HostedTools
from ...core import RequestError
from ...versions import versions
from . import stock
from .context import gib
from .host import Host
from .settings import ModelSettings

__all__ = [
    "ENDPOINTS",
    "anthropic_model",
    "anthropic_models",
    "banner",
    "openai_model",
    "page",
    "props",
    "slots",
    "summary",
]

Json: TypeAlias = "dict[str, Any]"

ENDPOINTS: Mapping[str, Sequence[str]] = {
    "OpenAI": ("/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/models"),
    "Anthropic": ("/v1/messages", "/v1/messages/count_tokens", "/v1/models"),
    "llama.cpp": ("/tokenize", "/detokenize", "/apply-template", "/props", "/slots", "/v1/chat/completions/control"),
    "Operations": ("/health", "/readyz", "/metrics", "/openapi.json"),
}
MANUAL = "docs/llamacpp.md in the source of harmony-plugin; every setting: --help"
STARTED = int(time.time())
EVERYWHERE = frozenset({"0.0.0.0", "::"})
MOST_MODELS = 1000
PAGE = 20


def banner(
    host: Host,
    scheme: str,
    address: str,
    port: int,
    *,
    keyed: bool,
    ui: bool = False,
    hosted: HostedTools | None = None,
) -> Iterator[str]:
    """Lines for the person who started the server, once it listens.

    Args:
        address: the one that it listens on.
        keyed: whether requests need the API key.
        ui: whether there is a page to chat on.
        hosted: the tools that the server runs itself.
    """
    everywhere = address in EVERYWHERE
    listening, here = (f"{scheme}://{f'[{one}]' if ':' in one else one}:{port}" for one in (address, "localhost"))
    url = here if everywhere else listening
    alias = host.aliases[0]
    settings, loaded = host.settings(alias), host.loaded[alias]
    yield versions()
    facts = loaded.facts
    known = [facts.architecture, f"{_short(facts.parameters)} parameters", gib(facts.size)]
    yield f"  model      {alias}: {', '.join(word for word in known if word)}; {settings.model}"
    if len(host.aliases) > 1:
        how = "when asked for, in its place" if host.most == 1 else f"when asked for, {host.most} in memory at a time"
        yield f"             {how}: {', '.join(host.aliases[1:])}"
    size = "" if loaded.context.memory is None else f" ({gib(loaded.context.memory)})"
    yield f"  context    {loaded.context.tokens:,} tokens{size}: {loaded.context.why}"
    if loaded.context.warning is not None:
        yield f"             WARNING: {loaded.context.warning}"
    longest = getattr(settings, "max_tokens", None)
    limit = f"at most {longest:,} tokens" if longest else "as long as the context allows"
    effort = None
    if isinstance(settings, ModelSettings) and settings.chat_format == "harmony":
        effort = settings.defaults().reasoning_effort
    yield f"  replies    {limit}" + (f"; reasoning effort {effort} where a request names none" if effort else "")
    seats = host.seats(alias)
    together = "one at a time" if seats == 1 else f"{seats} at a time, which share the context"
    yield f"  requests   {together}; {host.max_queue} may wait for a model"
    heading = "tools"
    for server, tools in (hosted or HostedTools()).by_server().items():
        names = (f"{tool.name} as {tool.recipient}" if tool.recipient else tool.name for tool in tools)
        yield f"  {heading:<10} run here, by MCP server {server}: {', '.join(names)}"
        heading = ""
    for api in ("OpenAI", "Anthropic"):
        base = url + ("/v1" if api == "OpenAI" else "")
        yield f"  {api:<10} {base}  ({' '.join(ENDPOINTS[api])})"
    if ui:
        yield f"  browser    {url}/  (a page to chat on)"
    nobody = "none needed" + (", and all who reach this machine can ask: --api_key sets one" if everywhere else "")
    yield f"  key        {'needed: --api_key' if keyed else nobody}"
    yield f"  manual     {MANUAL}"
    yield f"listening on {listening} (the model took {loaded.seconds:.1f} s to load); Ctrl+C stops it"


def summary(host: Host, *, keyed: bool, shown: bool) -> Json:
    """What `/` answers a program.

    Args:
        shown: whether whoever asks may see the models.
    """
    about: Json = {"name": "harmony-plugin", "description": "llama-cpp-python's server for gpt-oss"}
    if shown:
        about |= {"versions": versions(), "models": host.aliases}
    return about | {"api_key_needed": keyed, "endpoints": ENDPOINTS, "manual": MANUAL}


def page(about: Json, root: str) -> str:
    """What `/` answers a person: `summary` as one page that needs nothing from elsewhere.

    Args:
        root: the path that the server stands under.
    """
    rows = [
        f"<h2>{html.escape(api)}</h2><ul>"
        + "".join(f"<li><code>{html.escape(root + path)}</code></li>" for path in paths)
        + "</ul>"
        for api, paths in about["endpoints"].items()
    ]
    models = "".join(f"<li><code>{html.escape(name)}</code></li>" for name in about.get("models", ()))
    key = "Requests need the API key." if about["api_key_needed"] else "No API key is needed."
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>harmony-plugin</title>'
        "<style>body{font:16px/1.5 sans-serif;max-width:44em;margin:2em auto;padding:0 1em}</style></head><body>"
        f"<h1>harmony-plugin</h1><p>{html.escape(about['description'])}. "
        f"{html.escape(about.get('versions', ''))}</p><p>{key}</p>"
        + (f"<h2>Models</h2><ul>{models}</ul>" if models else "")
        + "".join(rows)
        + f"<p>Manual: {html.escape(about['manual'])}</p></body></html>\n"
    )


def openai_model(host: Host, alias: str) -> Json:
    """A model as `/v1/models` of OpenAI has it, with what llama.cpp's and vLLM's servers add."""
    model: Json = {"id": alias, "object": "model", "created": _created(host, alias), "owned_by": "llamacpp"}
    context = _context(host, alias)
    if context is not None:
        model |= {"context_length": context, "max_model_len": context}
    loaded = host.loaded.get(alias)
    if loaded is not None:
        facts = loaded.facts
        model["meta"] = {
            "architecture": facts.architecture,
            "n_ctx_train": facts.trained,
            "n_embd": facts.number("embedding_length"),
            "n_params": facts.parameters,
            "n_vocab": facts.vocabulary,
            "size": facts.size,
        }
    return model


def anthropic_model(host: Host, alias: str) -> Json:
    """A model as `/v1/models` of Anthropic has it."""
    created = datetime.fromtimestamp(_created(host, alias), timezone.utc)
    model: Json = {
        "type": "model",
        "id": alias,
        "display_name": alias.removesuffix(".gguf"),
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
    }
    context = _context(host, alias)
    if context is not None:
        longest = getattr(host.settings(alias), "max_tokens", None)
        model |= {"max_input_tokens": context, "max_tokens": min(context, longest or context)}
    return model


def anthropic_models(host: Host, query: Mapping[str, str]) -> Json:
    """The page of models that `limit`, `after_id` and `before_id` ask for.

    Raises:
        RequestError: for a limit that is none, or an id that no model has.
    """
    given = query.get("limit", str(PAGE))
    if not given.isdecimal() or not 1 <= int(given) <= MOST_MODELS:
        raise RequestError(f"limit is {given!r}; it may be 1 to {MOST_MODELS}", "limit", "invalid_value")
    names, size = host.aliases, int(given)
    for name in ("after_id", "before_id"):
        if name in query and query[name] not in names:
            raise RequestError(f"{name}: there is no model {query[name]!r}", name, "invalid_value")
    if "before_id" in query:
        rest = names[: names.index(query["before_id"])]
        shown = rest[-size:]
    else:
        rest = names[names.index(query["after_id"]) + 1 :] if "after_id" in query else names
        shown = rest[:size]
    return {
        "data": [anthropic_model(host, alias) for alias in shown],
        "has_more": len(rest) > len(shown),
        "first_id": shown[0] if shown else None,
        "last_id": shown[-1] if shown else None,
    }


def props(host: Host, llama: Any) -> Json:
    """What `/props` of llama.cpp's own server tells, of the model in memory."""
    vocabulary = stock.vocabulary(llama)
    alias = vocabulary.alias or host.aliases[0]
    settings, metadata = host.settings(alias), host.loaded[alias].facts.metadata
    special = vocabulary.pieces(token for token in (vocabulary.bos, vocabulary.eos) if token is not None)

    def text(token: int | None) -> str:
        return "" if token is None else special[token].decode("utf-8", "replace")

    return {
        "default_generation_settings": {"n_ctx": host.loaded[alias].context.tokens, "params": _params(settings)},
        "total_slots": getattr(settings, "n_parallel", 1),
        "model_alias": alias,
        "model_path": llama.model_path,
        "modalities": {"vision": False, "video": False, "audio": False},
        "chat_template": metadata.get("tokenizer.chat_template", ""),
        "bos_token": text(vocabulary.bos),
        "eos_token": text(vocabulary.eos),
        "build_info": versions(),
    }


def _params(settings: stock.ModelSettings) -> Json:
    """What replies are made with where a request does not say; as far as settings tell it."""
    params: Json = {"seed": settings.seed}
    if isinstance(settings, ModelSettings) and settings.chat_format == "harmony":
        defaults = settings.defaults()
        sampling = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")
        params |= {name: getattr(defaults, name) for name in sampling}
        params["max_tokens"] = params["n_predict"] = -1 if defaults.max_tokens is None else defaults.max_tokens
        params["reasoning_effort"] = defaults.reasoning_effort
        params["max_reasoning_tokens"] = defaults.max_reasoning_tokens
    return params


def slots(host: Host) -> list[Json]:
    """What each place for a reply does now, as `/slots` of `llama-server` has it; no text."""
    told: list[Json] = []
    for alias, scheduler in host.schedulers().items():
        jobs = [*scheduler.running]
        for number in range(scheduler.parallel):
            slot: Json = {"id": number, "model": alias, "n_ctx": scheduler.engine.context_size, "is_processing": False}
            if number < len(jobs):
                generation, sequence = jobs[number].generation, jobs[number].sequence
                slot |= {
                    "is_processing": True,
                    "state": "reading" if jobs[number].first is None else "writing",
                    "n_prompt_tokens": generation.prompt_tokens,
                    "n_prompt_tokens_cache": generation.cached_tokens,
                    "n_prompt_tokens_processed": 0
                    if sequence is None
                    else min(len(sequence.ids), generation.prompt_tokens),
                    "n_decoded": generation.completion_tokens,
                    "n_reasoning": generation.stream.reasoning_tokens,
                }
            told.append(slot)
    return told


def _short(count: int) -> str:
    """A number of parameters as people say it."""
    for size, name in ((10**9, "B"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.1f} {name}"
    return str(count)


def _created(host: Host, alias: str) -> int:
    """When the model's file was written; of a model that is elsewhere, when the server was started."""
    try:
        return int(Path(host.settings(alias).model).stat().st_mtime)
    except OSError:
        return STARTED


def _context(host: Host, alias: str) -> int | None:
    """The context in tokens; None: it is known once the model is loaded."""
    loaded = host.loaded.get(alias)
    return loaded.context.tokens if loaded is not None else host.settings(alias).n_ctx or None
