// Markdown as far as models write it: text in, DOM nodes out. No HTML is ever parsed: a tag in the text is text.

import { copyButton, make } from "./dom.js";

/** Shows text that grows. Blocks that are complete are made once and left alone, so that a selection in them stays. */
export class Markdown {
  constructor(element) {
    this.element = element;
    this.shown = [];
  }

  show(text) {
    const blocks = split(text);
    let same = 0;
    while (same < this.shown.length && this.shown[same] === blocks[same]?.source) same++;
    while (this.element.childNodes.length > same) this.element.lastChild.remove();
    for (const block of blocks.slice(same)) this.element.append(block.node());
    this.shown = blocks.map((block) => block.source);
  }
}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])\s+/;
const ROW = /^\s*\|.*\|\s*$/;
const COLUMNS = /^\s*\|(\s*:?-+:?\s*\|)+\s*$/;
const BEGINNINGS = [FENCE, HEADING, RULE, QUOTE, ITEM, ROW];
const DEEPEST = 8;

/** The blocks of a text: `{source, node}`, `node()` makes the element. */
function split(text, depth = 0) {
  const lines = text.split("\n");
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const [end, node] = block(lines, at, depth);
    blocks.push({ source: lines.slice(at, end).join("\n") + (end < lines.length ? "\n" : ""), node });
    at = end;
  }
  return blocks;
}

/** The block that begins at a line: where it ends, and what makes it. */
function block(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  // The page's own headings are the first and the second.
  if (heading) return [at + 1, () => inline(make(`h${Math.min(6, heading[1].length + 2)}`), heading[2])];
  if (RULE.test(line)) return [at + 1, () => make("hr")];
  if (depth < DEEPEST && QUOTE.test(line)) {
    const end = run(lines, at, (one) => QUOTE.test(one));
    const inner = lines.slice(at, end).map((one) => one.replace(QUOTE, "")).join("\n");
    return [end, () => nested(make("blockquote"), inner, depth)];
  }
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, at, depth);
  if (ROW.test(line) && COLUMNS.test(lines[at + 1] ?? "")) return table(lines, at);
  const end = run(lines, at, (one) => one.trim() && !BEGINNINGS.some((beginning) => beginning.test(one)));
  return [end, () => inline(make("p"), lines.slice(at, end).join("\n"))];
}

/** Where a run of lines ends that begins at `at` and goes on while `more` says so. */
function run(lines, at, more) {
  let end = at + 1;
  while (end < lines.length && more(lines[end])) end++;
  return end;
}

function code(lines, at, [, mark, language]) {
  const inside = run(lines, at, (one) => !(one.trim().startsWith(mark) && !one.trim().replaceAll(mark[0], "")));
  const text = lines.slice(at + 1, inside).join("\n");
  const node = () =>
    make(
      "figure",
      { className: "code" },
      make("figcaption", {}, language || "text", copyButton(() => text, { "aria-label": "Copy the code" })),
      make("pre", { tabIndex: 0 }, make("code", {}, text)),
    );
  return [Math.min(inside + 1, lines.length), node];
}

function list(lines, at, depth) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const width = indent.length;
  const ofThis = (one) => {
    const item = ITEM.exec(one);
    return item && item[1].length <= width + 1 && /\d/.test(item[2]) === ordered;
  };
  const inside = (one) => one.search(/\S/) > width + 1;
  const items = [];
  let end = at;
  while (end < lines.length) {
    const next = lines[end].trim() ? end : run(lines, end, (one) => !one.trim());
    if (next >= lines.length || RULE.test(lines[next])) break;
    const line = lines[next];
    if (ofThis(line)) items.push([line.replace(ITEM, "")]);
    else if (items.length && inside(line)) items.at(-1).push(...lines.slice(end, next), line);
    // Text right below an item goes on with it, as in a paragraph.
    else if (items.length && next === end && !BEGINNINGS.some((beginning) => beginning.test(line))) items.at(-1).push(line);
    else break;
    end = next + 1;
  }
  const start = ordered ? { start: Number.parseInt(mark, 10) } : {};
  const node = () => make(ordered ? "ol" : "ul", start, ...items.map((item) => nested(make("li"), outdent(item), depth)));
  return [end, node];
}

/** The lines of an item, those behind the first one moved left together. */
function outdent([first, ...rest]) {
  const indents = rest.filter((line) => line.trim()).map((line) => line.search(/\S/));
  const by = Math.min(...indents, Infinity);
  return [first, ...rest.map((line) => line.slice(Math.min(by, line.length)))].join("\n");
}

function table(lines, at) {
  const end = run(lines, at, (one) => ROW.test(one));
  const cells = (line) => line.trim().slice(1, -1).split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
  const row = (line, name) => make("tr", {}, ...cells(line).map((cell) => inline(make(name), cell)));
  const node = () =>
    make(
      "div",
      { className: "table", tabIndex: 0, role: "region", "aria-label": "Table" },
      make(
        "table",
        {},
        make("thead", {}, row(lines[at], "th")),
        make("tbody", {}, ...lines.slice(at + 2, end).map((line) => row(line, "td"))),
      ),
    );
  return [end, node];
}

/** Blocks inside of an element; a paragraph at its beginning is its own text. */
function nested(element, text, depth) {
  const nodes = split(text, depth + 1).map((one) => one.node());
  if (nodes[0]?.localName === "p" && element.localName === "li") nodes.splice(0, 1, ...nodes[0].childNodes);
  element.append(...nodes);
  return element;
}

// Each part has a longest length, so that no text takes more than linear time.
const INLINE = new RegExp(
  [
    /(?<ticks>`{1,3})(?!`)(?<code>[^]{1,2000}?)\k<ticks>(?!`)/,
    /\*\*(?<bold>(?=\S)[^]{0,2000}?\S)\*\*/,
    /\*(?<italic>(?=\S)[^*]{1,500}?)\*(?!\w)/,
    /!?\[(?<text>[^[\]]{1,500})\]\((?<target>[^\s()]{1,2000}(?:\([^\s()]{0,200}\)[^\s()]{0,200})?)\)/,
    /(?<address>https?:\/\/[^\s<>()[\]"'`*]{1,2000})/,
    /(?<escaped>\\[\\`*_[\]#|~<>()+.!-])/,
  ].map((part) => part.source).join("|"),
  "g",
);

function inline(element, text) {
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    element.append(text.slice(at, found.index), part(found));
    at = found.index + found[0].length;
  }
  element.append(text.slice(at));
  return element;
}

function part({ 0: source, groups }) {
  if (groups.code !== undefined) return make("code", {}, groups.code.replace(/^ (.*\S.*) $/, "$1"));
  if (groups.bold !== undefined) return inline(make("strong"), groups.bold);
  if (groups.italic !== undefined) return inline(make("em"), groups.italic);
  if (groups.escaped !== undefined) return groups.escaped[1];
  if (groups.address !== undefined) {
    const address = groups.address.replace(/[.,:;!?]+$/, "");
    const node = link(address, [address]);
    return node ? make("span", {}, node, source.slice(address.length)) : source;
  }
  return link(groups.target, inline(make("span"), groups.text).childNodes) ?? source;
}

/** A link, or null for what is no plain web address. An image is a link, too: the page fetches nothing from elsewhere. */
function link(target, children) {
  if (!/^https?:\/\//i.test(target) || !URL.canParse(target)) return null;
  return make("a", { href: target, target: "_blank", rel: "noopener noreferrer" }, ...children);
}
