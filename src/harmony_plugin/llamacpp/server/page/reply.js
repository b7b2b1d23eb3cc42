// One reply: what it is (`Reply`, from the chunks of a stream) and how it is shown (`ReplyView`).

import { button, copyButton, make, number } from "./dom.js";
import { Markdown } from "./markdown.js";

export class Reply {
  constructor() {
    this.role = "assistant";
    this.id = null;
    this.content = "";
    this.reasoning = "";
    this.calls = [];
    this.finish = null;
    this.usage = null;
    this.timings = null;
    this.error = null;
    /** waiting (for its turn), reading (the prompt), thinking, answering, calling, done */
    this.state = "waiting";
    this.thinkingSince = null;
    this.thoughtFor = 0;
  }

  add(chunk) {
    this.id = chunk.id ?? this.id;
    this.usage = chunk.usage ?? this.usage;
    this.timings = chunk.timings ?? this.timings;
    for (const { delta, finish_reason } of chunk.choices) {
      this.finish = finish_reason ?? this.finish;
      const reasoning = delta.reasoning_content ?? delta.reasoning;
      if (reasoning) {
        this.turnTo("thinking");
        this.reasoning += reasoning;
      }
      if (delta.content) {
        this.turnTo("answering");
        this.content += delta.content;
      }
      for (const call of delta.tool_calls ?? []) {
        this.turnTo("calling");
        this.addCall(call);
      }
    }
  }

  addCall({ index, id, type, function: called, custom }) {
    const call = (this.calls[index] ??= { id, type, name: "", input: "", result: null });
    call.name += called?.name ?? custom?.name ?? "";
    call.input += called?.arguments ?? custom?.input ?? "";
  }

  turnTo(state) {
    if (state === this.state) return;
    if (this.state === "thinking") this.thoughtFor += performance.now() - this.thinkingSince;
    if (state === "thinking") this.thinkingSince = performance.now();
    this.state = state;
  }

  /** How long it has been thinking, in ms. */
  get thinkingTime() {
    return this.thoughtFor + (this.state === "thinking" ? performance.now() - this.thinkingSince : 0);
  }

  /** Calls that wait for a result. Those of a reply that was cut are not whole. */
  get asked() {
    return this.finish === "tool_calls" ? this.calls : [];
  }

  /** The messages that go back to the server: the reply's own, and the results of its calls. */
  messages() {
    const message = { role: "assistant", content: this.content || null };
    if (this.reasoning) message.reasoning_content = this.reasoning;
    if (this.asked.length) message.tool_calls = this.asked.map(sent);
    if (!this.content && !this.asked.length) return [];
    const results = this.asked.map((call) => ({ role: "tool", tool_call_id: call.id, content: call.result ?? "" }));
    return [message, ...results];
  }
}

function sent({ id, type, name, input }) {
  if (type === "custom") return { id, type, custom: { name, input } };
  return { id, type: "function", function: { name, arguments: input } };
}

export class ReplyView {
  /** `actions`: `answer(reply)` sends the results of calls, `inspect(reply)`, `again()` asks for another reply. */
  constructor(reply, actions) {
    this.reply = reply;
    this.actions = actions;
    this.summary = make("summary", {}, "Thinking…");
    this.thought = document.createTextNode("");
    this.thinking = make(
      "details",
      { className: "thinking", hidden: true },
      this.summary,
      make("div", { className: "thought", tabIndex: 0, role: "region", "aria-label": "Thinking" }, this.thought),
    );
    this.content = make("div", { className: "markdown" });
    this.calls = make("form", { className: "calls", hidden: true, autocomplete: "off" });
    this.notice = make("p", { className: "notice", hidden: true });
    this.foot = make("footer", { hidden: true });
    this.element = make(
      "article",
      { className: "reply" },
      make("h2", { className: "unseen" }, "Reply"),
      this.thinking,
      this.content,
      this.calls,
      this.notice,
      this.foot,
    );
    this.markdown = new Markdown(this.content);
    this.calls.onsubmit = (event) => {
      event.preventDefault();
      this.send();
    };
    this.due = 0;
    this.clock = setInterval(() => this.schedule(), 1000);
  }

  /** Paint soon; many chunks are painted at once. */
  schedule() {
    this.due ||= requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.due);
    this.due = 0;
    const { reply } = this;
    if (reply.reasoning) {
      this.thinking.hidden = false;
      const seconds = Math.round(reply.thinkingTime / 1000);
      const told = reply.state === "thinking" ? `Thinking… ${seconds} s` : `Thought for ${seconds || "less than 1"} s`;
      if (this.summary.textContent !== told) this.summary.textContent = told;
      const box = this.thought.parentElement;
      const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
      this.thought.appendData(reply.reasoning.slice(this.thought.length));
      if (atEnd) box.scrollTop = box.scrollHeight;
    }
    this.markdown.show(reply.content);
    for (const [place, call] of reply.calls.entries()) {
      const shown = this.calls.children[place] ?? this.calls.appendChild(callCard());
      shown.querySelector(".name").textContent = call.name;
      shown.querySelector("pre > code").textContent = reply.state === "done" ? pretty(call.input) : call.input;
    }
    this.calls.hidden = !reply.calls.length;
    this.actions.painted();
  }

  /** The reply is over, as well or badly as it may be. */
  finish() {
    clearInterval(this.clock);
    this.paint();
    const { reply } = this;
    this.notice.textContent = noticeOf(reply);
    this.notice.hidden = !this.notice.textContent;
    this.notice.classList.toggle("error", Boolean(reply.error));
    if (reply.asked.length) this.ask();
    const stats = make("span", { className: "stats" }, statsOf(reply));
    this.again = button(reply.error ? "Try again" : "Regenerate", () => this.actions.again());
    this.foot.append(
      ...(reply.content ? [copyButton(() => reply.content, { "aria-label": "Copy the reply" })] : []),
      this.again,
      ...(reply.id ? [button("Inspect", () => this.actions.inspect(reply), { "aria-label": "Inspect the reply" })] : []),
      stats,
    );
    this.foot.hidden = false;
  }

  /** Boxes for what the calls return. */
  ask() {
    for (const [place, call] of this.reply.asked.entries()) {
      const box = make("textarea", { rows: 2, className: "code", spellcheck: false });
      box.onkeydown = (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.send();
      };
      this.calls.children[place].append(make("label", {}, `Result of ${call.name}`, box));
    }
    const label = this.reply.asked.length > 1 ? "Send the results" : "Send the result";
    this.calls.append(make("button", { type: "submit", className: "primary" }, label));
  }

  send() {
    const boxes = [...this.calls.querySelectorAll("textarea")];
    for (const [place, box] of boxes.entries()) this.reply.asked[place].result = box.value;
    if (!this.actions.answer(this.reply)) return;
    for (const box of boxes) {
      const shown = make("pre", { tabIndex: 0 }, make("code", {}, box.value || "(nothing)"));
      box.parentElement.replaceWith(make("p", { className: "hint" }, "Result"), shown);
    }
    this.calls.querySelector("button[type=submit]").remove();
  }

  /** It is not the last reply any more. */
  retire() {
    this.again.remove();
  }
}

function callCard() {
  const head = make("p", {}, make("span", { className: "hint" }, "Call of "), make("code", { className: "name" }));
  return make("section", { className: "call" }, head, make("pre", { tabIndex: 0 }, make("code")));
}

function pretty(input) {
  try {
    return JSON.stringify(JSON.parse(input), null, 2);
  } catch {
    return input;
  }
}

function noticeOf({ error, finish, content, calls, reasoning }) {
  if (error) return error;
  if (finish === "length") return "Cut: the reply reached the limit of tokens.";
  if (finish === "stopped") return "Stopped.";
  if (!content && !calls.length) return reasoning ? "The reply has no answer, only thinking." : "The reply is empty.";
  return "";
}

function statsOf({ usage, timings }) {
  if (!usage) return "";
  const thinking = usage.completion_tokens_details?.reasoning_tokens;
  const cached = usage.prompt_tokens_details?.cached_tokens;
  const speed = timings?.predicted_per_second;
  return [
    `${number(usage.completion_tokens)} tokens` + (thinking ? ` (${number(thinking)} thinking)` : ""),
    ...(speed ? [`${speed.toFixed(1)} tokens/s`] : []),
    `prompt ${number(usage.prompt_tokens)}` + (cached ? ` (${number(cached)} cached)` : ""),
  ].join(" · ");
}
