// Makes elements, and copies text. Text is always set as text: nothing here or elsewhere on the page parses HTML.

/** An element. `fields`: its properties; those that are not properties (aria-…, role) are set as attributes. */
export function make(name, fields = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(fields)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

export function button(label, onclick, fields = {}) {
  return make("button", { type: "button", onclick, ...fields }, label);
}

/** A button that copies what `text()` gives, and says so. */
export function copyButton(text, fields = {}) {
  const made = button("Copy", async () => {
    made.textContent = (await copy(text())) ? "Copied" : "Not copied";
    setTimeout(() => (made.textContent = "Copy"), 1500);
  }, fields);
  return made;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages that came over plain HTTP from another machine have no clipboard, or may not write to it.
    const area = make("textarea", { value: text, className: "unseen" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

const numbers = new Intl.NumberFormat("en");
export const number = (value) => numbers.format(value);
