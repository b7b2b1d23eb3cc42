// The inspector: what the model wrote for one reply, marker by marker, and how it was split. Knows the answer of
// `GET /v1/chat/completions/{id}/explain`, and nothing of chats.

import { byId, make } from "./dom.js";

const LEGEND = [
  ["reasoning", "reasoning"],
  ["content", "content"],
  ["tool_call", "tool call"],
  ["dropped", "dropped"],
  ["header", "header"],
  ["marker", "marker"],
];

export class Inspector {
  constructor(api) {
    this.api = api;
    this.panel = byId("inspector");
    this.toggle = byId("inspector-toggle");
    this.body = byId("inspector-body");
    this.ids = byId("inspector-ids");
    this.wanted = null;
    this.toggle.onclick = () => this.set(this.panel.hidden);
    byId("inspector-close").onclick = () => this.set(false);
    this.panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented) this.set(false);
    });
    this.ids.onchange = () => this.body.classList.toggle("with-ids", this.ids.checked);
    this.body.classList.toggle("with-ids", this.ids.checked);
    this.show(null);
  }

  set(open) {
    this.panel.hidden = !open;
    this.toggle.setAttribute("aria-expanded", String(open));
    document.body.classList.toggle("inspecting", open);
    if (open) {
      this.load();
      byId("inspector-title").focus();
    } else this.toggle.focus();
  }

  /** The reply of that id is the one to show; it is asked for when the panel is open. */
  show(id) {
    this.wanted = id;
    this.shown = undefined;
    if (!this.panel.hidden) this.load();
  }

  async load() {
    const id = this.wanted;
    if (this.shown === id) return;
    this.shown = id;
    if (id === null) return this.say("When there is a reply, this shows what the model wrote for it.");
    this.say("Loading…");
    try {
      const told = await this.api.get(`v1/chat/completions/${encodeURIComponent(id)}/explain`);
      if (this.wanted === id) this.paint(told);
    } catch (error) {
      const missing = error.status === 404 ? "Inspection isn't available for this reply." : error.message;
      if (this.wanted === id) this.say(missing);
    }
  }

  say(text) {
    this.ids.disabled = true;
    this.body.replaceChildren(make("p", { className: "hint" }, text));
  }

  paint({ unit, segments, messages, issues }) {
    this.ids.disabled = !segments.some((segment) => segment.ids);
    const raw = make("pre", { className: "raw", tabIndex: 0, "aria-label": "The model's output" });
    for (const part of placed(segments, issues, unit)) raw.append(part.code ? mark(part) : span(part));
    const kinds = LEGEND.map(([kind, name]) => make("span", { className: kind }, name));
    const items = issues.map((issue) => issueItem(issue, unit));
    const none = make("p", { className: "hint" }, "Well-formed: nothing had to be repaired.");
    this.body.replaceChildren(
      make("h3", {}, "Output"),
      raw,
      make("p", { className: "legend" }, ...kinds),
      make("h3", {}, "Repairs"),
      items.length ? make("ul", { className: "issues" }, ...items) : none,
      make("h3", {}, "Messages"),
      make("ol", { className: "messages" }, ...messages.map(messageItem)),
    );
  }
}

/** Segments and issues in order. An issue inside of a segment stands in front of it, but where both count characters. */
function placed(segments, issues, unit) {
  const parts = [];
  const waiting = [...issues].sort((one, other) => one.offset - other.offset);
  for (const [place, segment] of segments.entries()) {
    const end = segments[place + 1]?.offset ?? Infinity;
    // As Python counts them.
    let letters = [...segment.text];
    let at = segment.offset;
    while (waiting.length && waiting[0].offset < end) {
      const issue = waiting.shift();
      const before = unit === "characters" ? letters.splice(0, issue.offset - at) : [];
      if (before.length) parts.push({ ...segment, text: before.join("") });
      at += before.length;
      parts.push(issue);
    }
    if (letters.length) parts.push({ ...segment, text: letters.join("") });
  }
  return [...parts, ...waiting];
}

function span({ kind, text, ids }) {
  const shown = ids ? [make("small", { className: "ids" }, ids.join(" "))] : [];
  return make("span", { className: kind }, text, ...shown, make("wbr"));
}

/** An issue at its place. What it means is told when it is pointed at, touched or focused. */
function mark({ code, meaning, text }) {
  const made = make("button", { type: "button", className: "issue", "aria-describedby": "tip" }, code);
  const told = meaning + (text ? `: ${text}` : "");
  const tip = byId("tip");
  const show = () => {
    tip.textContent = told;
    tip.hidden = false;
    const { left, bottom, top } = made.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
    const below = bottom + 6 + tip.offsetHeight < innerHeight;
    tip.style.top = `${below ? bottom + 6 : top - 6 - tip.offsetHeight}px`;
  };
  const hide = () => (tip.hidden = true);
  made.onmouseenter = made.onfocus = made.onclick = show;
  made.onmouseleave = made.onblur = hide;
  made.onkeydown = (event) => {
    if (event.key === "Escape" && !tip.hidden) {
      event.preventDefault();
      hide();
    }
  };
  return made;
}

function issueItem({ code, offset, text, meaning }, unit) {
  const where = ` at ${unit === "tokens" ? "token" : "character"} ${offset}`;
  const said = text ? [make("pre", { tabIndex: 0 }, text)] : [];
  return make("li", {}, make("p", {}, make("code", {}, code), where), make("p", { className: "hint" }, meaning), ...said);
}

function messageItem({ field, role, channel, recipient, content_type, text, complete, name }) {
  const to = recipient && `to ${recipient}`;
  const header = [role, channel, to, content_type, !complete && "cut"].filter(Boolean).join(" · ");
  const label = (field ?? "dropped").replace("_", " ") + (name ? `: ${name}` : "");
  return make(
    "li",
    {},
    make(
      "p",
      {},
      make("span", { className: `field ${field ?? "dropped"}` }, label),
      make("span", { className: "hint" }, header),
    ),
    make("pre", { tabIndex: 0 }, text),
  );
}
