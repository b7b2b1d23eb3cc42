"""An explanation as one HTML page that needs nothing else: no script, nothing from elsewhere. Knows explanations
alone."""

from __future__ import annotations

import html
from collections.abc import Iterator

from ..core import Explanation, Issue, Segment, Shown, meaning

__all__ = ["page"]

STYLE = """
:root{color-scheme:light dark;--back:light-dark(#fff,#0d1117);--front:light-dark(#1b1f24,#e6edf3);
--dim:light-dark(#59636e,#9198a1);--line:light-dark(#d1d9e0,#3d444d);--box:light-dark(#f6f8fa,#151b23);
--reasoning:light-dark(#0a6173,#76d1e3);--content:light-dark(#116329,#7ee787);--tool_call:light-dark(#7a2fb5,#d2a8ff);
--dropped:light-dark(#b42318,#ff8a80);--mark:light-dark(#fdecea,#3c1618)}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;background:var(--back);
color:var(--front)}
h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}
pre{background:var(--box);border:1px solid var(--line);border-radius:8px;padding:1rem;white-space:pre-wrap;
overflow-wrap:anywhere;font:14px/1.7 ui-monospace,monospace}
.marker,.legend .marker{color:var(--dim)}.header{font-weight:bold}.reasoning{color:var(--reasoning);font-style:italic}
.content{color:var(--content)}.tool_call{color:var(--tool_call)}.dropped{color:var(--dropped);text-decoration:line-through}
.issue{background:var(--mark);color:var(--dropped);border:1px solid;border-radius:6px;padding:0 .35em;font-weight:bold}
a.issue{text-decoration:none}.ids{color:var(--dim);font-size:.85em}.legend{display:flex;flex-wrap:wrap;gap:0 1em}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid
var(--line);vertical-align:top;overflow-wrap:break-word}td.n{text-align:right}
li{margin:.6rem 0}li:target,.issue:target{outline:2px solid var(--dropped)}.scroll{overflow-x:auto}
"""
LEGEND = (
    ("marker", "marker"),
    ("header", "header"),
    ("reasoning", "reasoning"),
    ("content", "content"),
    ("tool_call", "tool call"),
    ("dropped", "in no field"),
)
NAMES = {"reasoning": "reasoning", "content": "content", "tool_call": "tool call", None: "no field"}


def page(explanation: Explanation, title: str) -> str:
    """The page.

    Args:
        title: what was explained.
    """
    unit = "token" if explanation.unit == "tokens" else "character"
    legend = "".join(f'<span class="{kind}">{name}</span>' for kind, name in LEGEND)
    rows = "".join(_row(number, shown) for number, shown in enumerate(explanation.messages, 1))
    items = "".join(_item(number, issue, unit) for number, issue in enumerate(explanation.issues, 1))
    repairs = f"<ol>{items}</ol>" if items else "<p>Well-formed: nothing was repaired.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)} – Harmony explained</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1>"
        f'<h2>Output</h2><pre tabindex="0">{"".join(_output(explanation))}</pre><p class="legend">{legend}</p>'
        '<h2>Messages</h2><div class="scroll" tabindex="0"><table><thead><tr><th>#</th><th>goes to</th><th>channel</th>'
        f"<th>recipient</th><th>type</th><th>characters</th><td></td></tr></thead><tbody>{rows}</tbody></table></div>"
        f"<h2>Repairs</h2>{repairs}</main></body></html>\n"
    )


def _output(explanation: Explanation) -> Iterator[str]:
    waiting = sorted(enumerate(explanation.issues, 1), key=lambda numbered: numbered[1].offset)
    for segment in explanation.segments:
        text, at = segment.text, segment.offset
        end = at + (len(text) if segment.ids is None else len(segment.ids))
        while waiting and waiting[0][1].offset < end:
            number, issue = waiting.pop(0)
            if segment.ids is None and issue.offset > at:
                yield _span(text[: issue.offset - at], segment)
                text, at = text[issue.offset - at :], issue.offset
            yield _mark(number, issue)
        yield _span(text, segment)
        if segment.text in ("<|end|>", "<|call|>", "<|return|>") and segment.kind == "marker":
            yield "\n"
    for number, issue in waiting:
        yield _mark(number, issue)


def _span(text: str, segment: Segment) -> str:
    if not text:
        return ""
    told = "" if not segment.ids else f' title="{" ".join(map(str, segment.ids[:200]))}"'
    return f'<span class="{segment.kind}"{told}>{html.escape(text)}</span>'


def _mark(number: int, issue: Issue) -> str:
    told = html.escape(meaning(issue.code))
    return f'<a class="issue" id="at-{number}" href="#issue-{number}" title="{told}">{issue.code}</a>'


def _row(number: int, shown: Shown) -> str:
    message = shown.message
    name = html.escape(NAMES[shown.field] + (f" {shown.name}" if shown.name else ""))
    cells = "".join(f"<td>{html.escape(each or '')}</td>" for each in _where(shown))
    goes_to = f'<td class="{shown.field or "none"}">{name}</td>'
    rest = f'<td class="n">{len(message.text):,}</td><td>{"" if message.complete else "cut"}</td>'
    return f"<tr><td>{number}</td>{goes_to}{cells}{rest}</tr>"


def _where(shown: Shown) -> tuple[str | None, str | None, str | None]:
    return shown.message.channel, shown.message.recipient, shown.message.content_type


def _item(number: int, issue: Issue, unit: str) -> str:
    text = f"<pre>{html.escape(issue.text)}</pre>" if issue.text else ""
    place = f'<a href="#at-{number}">{unit} {issue.offset}</a>'
    code = f'<span class="issue">{issue.code}</span>'
    return f'<li id="issue-{number}">{code} at {place}: {html.escape(meaning(issue.code))}{text}</li>'
