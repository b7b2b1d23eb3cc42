// The settings: a form whose fields are named as the request's are, kept in localStorage. Knows nothing of replies.

import { byId } from "./dom.js";

const STORED = "harmony-plugin.settings";
const NUMBERS = ["temperature", "top_p", "max_tokens", "max_reasoning_tokens", "seed"];
const EXAMPLE = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "Current weather of a city.",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];

export class Settings {
  constructor() {
    this.dialog = byId("settings");
    this.form = this.dialog.querySelector("form");
    this.fields = this.form.elements;
    this.fill(stored());
    this.form.addEventListener("input", () => this.changed());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.check()) this.dialog.close();
    });
    byId("settings-open").onclick = () => this.open();
    byId("settings-reset").onclick = () => {
      this.fill({});
      this.changed();
    };
    byId("tools-example").onclick = () => {
      this.fields.tools.value = JSON.stringify(EXAMPLE, null, 2);
      this.changed();
    };
  }

  open() {
    this.dialog.showModal();
    this.check();
  }

  fill(values) {
    for (const field of this.fields) if (field.name) field.value = values[field.name] ?? "";
  }

  changed() {
    const named = [...this.fields].filter((field) => field.name && field.value);
    store(Object.fromEntries(named.map((field) => [field.name, field.value])));
    this.check();
  }

  /** What is wrong with the tools, told below them; "" if nothing. */
  check() {
    const wrong = wrongTools(this.fields.tools.value);
    byId("tools-error").textContent = wrong;
    this.fields.tools.setAttribute("aria-invalid", String(Boolean(wrong)));
    return wrong;
  }

  /** The fields of a request, those that are set; null: one is wrong, and the dialog says which. */
  request() {
    const wrong = this.check();
    if (wrong || !this.form.checkValidity()) {
      this.open();
      if (wrong) this.fields.tools.focus();
      else this.form.reportValidity();
      return null;
    }
    const given = {};
    for (const name of NUMBERS) if (this.fields[name].value) given[name] = Number(this.fields[name].value);
    if (this.fields.reasoning_effort.value) given.reasoning_effort = this.fields.reasoning_effort.value;
    if (this.fields.tools.value.trim()) given.tools = JSON.parse(this.fields.tools.value);
    return given;
  }

  get system() {
    return this.fields.system.value.trim();
  }

  /** Show what the server does where a field is empty; `params`: those of its `/props`. */
  defaults(params) {
    for (const name of NUMBERS) {
      const value = params[name];
      const none = value === null || value === undefined || value === -1 || name === "seed";
      this.fields[name].placeholder = none ? "" : `server's: ${value}`;
    }
    if (params.reasoning_effort) this.fields.reasoning_effort.options[0].text = `server's: ${params.reasoning_effort}`;
  }
}

function wrongTools(text) {
  if (!text.trim()) return "";
  let tools;
  try {
    tools = JSON.parse(text);
  } catch (error) {
    return `This is not JSON: ${error.message}`;
  }
  if (!Array.isArray(tools)) return "This is not a list: put [ and ] around the tools.";
  for (const [place, tool] of tools.entries()) {
    const type = tool?.type;
    if (type !== "function" && type !== "custom") return `Tool ${place + 1}: its "type" is not "function".`;
    if (typeof tool[type]?.name !== "string" || !tool[type].name) return `Tool ${place + 1}: "${type}" has no "name".`;
  }
  return "";
}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(STORED)) ?? {};
  } catch {
    return {}; // not to be had in this browser, or not ours
  }
}

function store(values) {
  try {
    localStorage.setItem(STORED, JSON.stringify(values));
  } catch {
    // Then they hold until the page is left.
  }
}
