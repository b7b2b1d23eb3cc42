// The page "Try it": text in, what became of it out, and a link that holds the text. All splitting is the worker's.

const WAIT = 250; // ms without a key before the text is split anew
const MOST = 2_000_000; // characters that a link may unpack to
const IDS = /^[\s[]*\d+([\s,]+\d+)+[\s\]]*$/;

const here = new URL(".", import.meta.url).href;

function element(name, given = {}, ...inside) {
  const made = Object.assign(document.createElement(name), given);
  made.append(...inside);
  return made;
}

// A link's fragment: the input as JSON, deflated, in base64's alphabet for addresses.

async function through(bytes, stream, most = Infinity) {
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader();
  const parts = [];
  for (let size = 0, part = await reader.read(); !part.done; part = await reader.read()) {
    size += part.value.length;
    if (size > most) throw new Error("too long");
    parts.push(part.value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function packed(input) {
  const bytes = new TextEncoder().encode(JSON.stringify(input));
  const small = await through(bytes, new CompressionStream("deflate-raw"));
  let letters = "";
  for (const byte of small) letters += String.fromCharCode(byte);
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

async function unpacked(text) {
  const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const large = await through(bytes, new DecompressionStream("deflate-raw"), MOST);
  const input = JSON.parse(new TextDecoder().decode(large));
  if (typeof input.text !== "string") throw new Error("no text");
  return { text: input.text, tools: typeof input.tools === "string" ? input.tools : "" };
}

// The page

const text = element("textarea", { id: "try-text", rows: 8, spellcheck: false });
const tools = element("input", { id: "try-tools", placeholder: "get_weather, search", autocomplete: "off", spellcheck: false });
const choice = element("select", { id: "try-example" }, element("option", { value: "" }, "choose …"));
const share = element("button", { type: "button", className: "md-button" }, "Copy a link to this");
const STARTING = "Python starts, once: 13 MB …";
const status = element("p", { className: "try-status" }, STARTING);
status.setAttribute("role", "status");
const frame = element("iframe", { title: "What became of it", hidden: true });
// It is our own page without scripts; this window may look at it to give it its height.
frame.setAttribute("sandbox", "allow-same-origin");
const message = element("code");
const openai = element("details", { hidden: true }, element("summary", {}, "As OpenAI's message"), element("pre", {}, message));

function labelled(words, input) {
  return element("label", { htmlFor: input.id }, words, input);
}

document.getElementById("try").append(
  labelled("What the model wrote", text),
  element("div", { className: "try-row" }, labelled("The request's tools, if you know them", tools), labelled("Example", choice)),
  share,
  status,
  frame,
  openai,
);

// The frame is as high as what is in it, and as dark as the page.

function fit() {
  const inside = frame.contentDocument?.documentElement;
  if (!inside) return;
  inside.style.colorScheme = document.body.dataset.mdColorScheme === "slate" ? "dark" : "light";
  frame.style.height = `${inside.offsetHeight + 2}px`;
}
frame.addEventListener("load", fit);
new ResizeObserver(fit).observe(frame.parentElement);
new MutationObserver(fit).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });

// Splitting

const worker = new Worker(new URL("splitter.js", import.meta.url), { type: "module" });
let ready = false;
let waiting = 0;

function split() {
  if (!ready) return;
  if (!text.value) {
    status.textContent = "";
    frame.hidden = openai.hidden = true;
    return;
  }
  const names = tools.value.split(",").map((name) => name.trim()).filter(Boolean);
  worker.postMessage({ text: text.value, tools: names });
}

function splitSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(split, WAIT);
}

worker.onmessage = ({ data }) => {
  if (data.ready) {
    ready = true;
    if (status.textContent === STARTING) status.textContent = "";
    split();
  } else if (data.error) {
    status.textContent = data.error;
  } else if (text.value) {
    status.textContent = IDS.test(text.value) ? "These look like token ids: `harmony-plugin explain --ids` reads them." : "";
    frame.hidden = openai.hidden = false;
    frame.srcdoc = data.page;
    message.textContent = data.message;
  }
};
worker.onerror = () => {
  status.textContent = "Python did not start: this copy of the manual was built without it, or the browser is too old.";
};
text.addEventListener("input", splitSoon);
tools.addEventListener("input", splitSoon);

share.addEventListener("click", async () => {
  const link = new URL(`#z=${await packed({ text: text.value, tools: tools.value })}`, location.href).href;
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link);
    status.textContent = `Copied, ${link.length.toLocaleString("en")} characters. What you pasted is in the link itself.`;
  } catch {
    status.textContent = "The link is this page's address now. What you pasted is in the link itself.";
  }
});

function show(input) {
  text.value = input.text;
  tools.value = input.tools;
  splitSoon();
}

const examples = await (await fetch(`${here}examples.json`)).json();
for (const { name } of examples) choice.append(element("option", { value: name }, name));
choice.addEventListener("change", () => {
  const { raw, tools: names } = examples.find(({ name }) => name === choice.value) ?? {};
  if (raw !== undefined) show({ text: raw, tools: (names ?? []).join(", ") });
});

async function begin() {
  const given = /^#z=(.+)$/.exec(location.hash)?.[1];
  if (given === undefined) return show({ text: examples[0].raw, tools: "" });
  try {
    show(await unpacked(given));
  } catch {
    status.textContent = "The link is damaged: there is nothing to be read in it.";
  }
}
window.addEventListener("hashchange", begin);
await begin();
