// The page: a conversation, its requests, and the buttons around them. What is said stays here; nothing is stored.

import { Api, events } from "./api.js";
import { button, byId, copyButton, make } from "./dom.js";
import { Inspector } from "./inspector.js";
import { Reply, ReplyView } from "./reply.js";
import { Settings } from "./settings.js";

const api = new Api(askKey);
const settings = new Settings();
const inspector = new Inspector(api);
const log = byId("log");
const message = byId("message");
const status = byId("status");
const model = byId("model");
/** Where a keyboard is on the screen: Enter is a line break there, and nothing but the user opens it. */
const touch = matchMedia("(pointer: coarse)");

/** The turns in order: `{role: "user", content}` or a `Reply`, each with the `view` that shows it. */
let turns = [];
/** The reply under way and what stops it, or null. */
let running = null;
/** The user's turn that is being edited, or null. */
let edited = null;

const last = () => turns.at(-1);
const unanswered = () => last()?.role === "assistant" && last().asked.some((call) => call.result === null);

// The conversation

function show(turn, view) {
  turn.view = view;
  turns.push(turn);
  byId("empty").hidden = true;
  log.append(view.element);
  following = true;
  follow();
}

/** Take back all turns from one on. */
function cut(from) {
  for (const turn of turns.splice(turns.indexOf(from))) turn.view.element.remove();
  byId("empty").hidden = turns.length > 0;
}

function say(text) {
  last()?.view.retire?.();
  const turn = { role: "user", content: text };
  const edit = button("Edit", () => startEditing(turn), { "aria-label": "Edit the message" });
  const element = make(
    "article",
    { className: "user" },
    make("h2", { className: "unseen" }, "You"),
    make("div", { className: "bubble" }, text),
    make("footer", {}, copyButton(() => text, { "aria-label": "Copy the message" }), edit),
  );
  for (const one of turns) if (one.role === "user") one.view.edit.remove();
  show(turn, { element, edit });
}

async function generate() {
  const fields = settings.request();
  if (fields === null) return;
  const system = settings.system ? [{ role: "system", content: settings.system }] : [];
  const said = turns.flatMap((turn) => (turn.role === "user" ? [{ role: "user", content: turn.content }] : turn.messages()));
  const body = { ...fields, messages: [...system, ...said], stream: true, stream_options: { include_usage: true } };
  if (model.value) body.model = model.value;

  const reply = new Reply();
  const view = new ReplyView(reply, {
    answer: (answered) => {
      if (answered !== last() || running || settings.request() === null) return false;
      view.retire();
      // The results are in the reply once this has returned.
      queueMicrotask(generate);
      return true;
    },
    again: () => regenerate(),
    inspect: ({ id }) => {
      inspector.show(id);
      if (byId("inspector").hidden) inspector.set(true);
    },
    painted: follow,
  });
  show(reply, view);
  running = { reply, stop: new AbortController() };
  refresh();
  const waiting = setInterval(() => tellWait(reply), 1000);
  try {
    const response = await api.post("v1/chat/completions", body, running.stop.signal);
    reply.turnTo("reading");
    refresh();
    for await (const chunk of events(response)) {
      const before = reply.state;
      reply.add(chunk);
      view.schedule();
      if (reply.state !== before) refresh();
    }
  } catch (error) {
    if (error.name === "AbortError") reply.finish = "stopped";
    else [reply.finish, reply.error] = ["error", error.message];
  } finally {
    clearInterval(waiting);
    reply.turnTo("done");
    running = null;
    view.finish();
    follow();
    refresh();
    if (reply === last() && reply.id) inspector.show(reply.id);
  }
}

function regenerate() {
  if (running || settings.request() === null) return;
  cut(last());
  generate();
}

/** What the model is busy with, while this request waits for its turn. */
async function tellWait(reply) {
  if (reply.state !== "waiting") return;
  const slots = await api.get("slots").catch(() => []);
  if (reply.state !== "waiting") return;
  const own = slots.filter((slot) => !model.value || slot.model === model.value);
  if (slots.length && !own.length) status.textContent = "Waiting for the model to be loaded…";
  else if (own.length && own.every((slot) => slot.is_processing)) {
    const taken = own.length === 1 ? "another reply is being written" : `${own.length} other replies are being written`;
    status.textContent = `Waiting in line: ${taken}.`;
  }
}

// The composer

const SAID = {
  waiting: "Waiting for the model…",
  reading: "Reading…",
  thinking: "Thinking…",
  answering: "Writing…",
  calling: "Writing a call…",
};

/** Buttons and status, as things are. */
function refresh() {
  const state = running?.reply.state;
  const held = [byId("stop"), byId("answer-now")].includes(document.activeElement);
  byId("stop").hidden = !running;
  byId("send").hidden = Boolean(running);
  byId("answer-now").hidden = state !== "thinking";
  byId("answer-now").disabled = false;
  log.setAttribute("aria-busy", String(Boolean(running)));
  message.disabled = !running && unanswered();
  byId("send").disabled = message.disabled;
  message.placeholder = message.disabled ? "Answer the call first" : "Message";
  status.textContent = running ? SAID[state] : "";
  if (running || touch.matches) return;
  // Whoever waited with the keyboard goes on from where the page asks for something.
  if (unanswered()) last().view.element.querySelector("textarea")?.focus();
  else if (held || document.activeElement === document.body) message.focus();
}

function send() {
  const text = message.value.trim();
  if (!text || running || (unanswered() && !edited) || settings.request() === null) return;
  if (edited) cut(edited);
  stopEditing();
  message.value = "";
  grow();
  say(text);
  generate();
}

function startEditing(turn) {
  if (running) return;
  edited = turn;
  byId("editing").hidden = false;
  message.disabled = byId("send").disabled = false;
  message.value = turn.content;
  grow();
  message.focus();
}

function stopEditing() {
  edited = null;
  byId("editing").hidden = true;
}

/** As high as its text, up to what the style allows. */
function grow() {
  message.style.height = "auto";
  message.style.height = `${message.scrollHeight}px`;
}

byId("composer").onsubmit = (event) => {
  event.preventDefault();
  send();
};
message.oninput = grow;
message.onkeydown = (event) => {
  if (event.key === "Escape" && edited) {
    byId("editing-cancel").click();
  } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !touch.matches) {
    event.preventDefault();
    send();
  }
};
byId("editing-cancel").onclick = () => {
  stopEditing();
  message.value = "";
  grow();
  refresh();
  message.focus();
};
byId("stop").onclick = () => running?.stop.abort();
byId("answer-now").onclick = async () => {
  const { reply } = running;
  byId("answer-now").disabled = true;
  try {
    const response = await api.post("v1/chat/completions/control", { id: reply.id, action: "reasoning_end" });
    const { success, message: why } = await response.json();
    if (!success && reply.state === "thinking") status.textContent = `Still thinking: ${why}.`;
  } catch (error) {
    status.textContent = error.message;
  }
};
byId("new-chat").onclick = () => {
  running?.stop.abort();
  for (const turn of turns) turn.view.element.remove();
  turns = [];
  byId("empty").hidden = false;
  stopEditing();
  inspector.show(null);
  refresh();
  message.focus();
};

/** Stay at the end of the conversation, unless the user has gone up to read. */
let following = true;
let top = 0;
log.onscroll = () => {
  if (log.scrollTop < top) following = false;
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 40) following = true;
  top = log.scrollTop;
};
function follow() {
  if (following) log.scrollTop = log.scrollHeight;
}

// The server

function askKey(refused) {
  const dialog = byId("key");
  const value = byId("key-value");
  byId("key-error").textContent = refused ? "The server did not accept that key." : "";
  value.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const end = (key) => {
      dialog.onclose = null;
      dialog.close();
      resolve(key);
    };
    dialog.onclose = () => end(null);
    byId("key-cancel").onclick = () => end(null);
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      end(value.value.trim());
    };
  });
}

async function start() {
  try {
    const { data } = await api.get("v1/models");
    model.replaceChildren(...data.map(({ id }) => make("option", { value: id }, id)));
    model.disabled = data.length < 2;
    await tellDefaults();
  } catch (error) {
    model.replaceChildren(make("option", { value: "" }, "no model"));
    status.textContent = error.message;
  }
}

/** What the server does where a setting is empty; of a model that is not in memory it is not known. */
async function tellDefaults() {
  const props = await api.get(`props?model=${encodeURIComponent(model.value)}`).catch(() => null);
  settings.defaults(props?.default_generation_settings.params ?? {});
}

model.onchange = tellDefaults;
refresh();
start();
message.focus();
