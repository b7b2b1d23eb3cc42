// Splits pasted output by the Python core, on Pyodide, in a worker: the page stays free while it starts and works.
// Takes {text, tools}, gives {page, message}, {error}, or once {ready: true}.
import { loadPyodide } from "./pyodide/pyodide.mjs";

const SPLIT = `
import json
from harmony_plugin.core import Trace
from harmony_plugin.explain.page import page

def split(text, tools):
    trace = Trace(tools=tools.to_py() or None)
    trace.feed(text)
    explanation = trace.finish()
    message = explanation.reply.to_openai()
    return [page(explanation, "What became of it"), json.dumps(message, ensure_ascii=False, indent=2)]
`;

async function start() {
  const here = new URL(".", import.meta.url).href;
  const pyodide = await loadPyodide({ indexURL: `${here}pyodide/` });
  const archive = await fetch(`${here}harmony_plugin.zip`);
  if (!archive.ok) throw new Error(`harmony_plugin.zip: ${archive.status}`);
  pyodide.unpackArchive(await archive.arrayBuffer(), "zip");
  pyodide.runPython(SPLIT);
  return pyodide.globals.get("split");
}

const started = start();
started.then(
  () => postMessage({ ready: true }),
  (error) => postMessage({ error: `Python did not start: ${error.message}` }),
);

onmessage = async ({ data }) => {
  try {
    const split = await started;
    const answer = split(data.text, data.tools);
    const [page, message] = answer.toJs();
    answer.destroy();
    postMessage({ page, message });
  } catch (error) {
    postMessage({ error: error.message });
  }
};
