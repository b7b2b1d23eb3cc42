// Requests to the server: the API key, errors in words, streams of server-sent events. Knows nothing of chats.

const KEY = "harmony-plugin.key";

/** What the server, or the way to it, has to say against a request. `status`: 0 where there was no answer. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export class Api {
  /** `askKey(refused)` gives a promise of a key, or of null; `refused`: there was one, and it is wrong. */
  constructor(askKey) {
    this.askKey = askKey;
    this.asking = null;
  }

  async get(path) {
    return (await this.send(path, {})).json();
  }

  /** The response as soon as it begins. */
  post(path, body, signal) {
    return this.send(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
  }

  async send(path, how) {
    for (;;) {
      const key = sessionStorage.getItem(KEY);
      const headers = { accept: "application/json", ...how.headers, ...(key && { authorization: `Bearer ${key}` }) };
      const response = await reach(path, { ...how, headers });
      if (response.ok) return response;
      const error = await read(response);
      if (response.status !== 401) throw error;
      // Several requests at once ask one time; one that was sent with an older key is sent again.
      if (sessionStorage.getItem(KEY) === key) {
        this.asking ??= this.askKey(key !== null).finally(() => (this.asking = null));
        const given = await this.asking;
        if (given === null) throw error;
        sessionStorage.setItem(KEY, given);
      }
    }
  }
}

async function reach(path, how) {
  try {
    return await fetch(new URL(path, document.baseURI), how);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (how.headers.authorization && error instanceof TypeError && !/^[\x20-\x7e]*$/.test(how.headers.authorization)) {
      sessionStorage.removeItem(KEY);
      throw new ApiError("The API key has characters that cannot be sent.");
    }
    throw new ApiError("The server cannot be reached.");
  }
}

async function read(response) {
  let said;
  try {
    said = (await response.json()).error?.message;
  } catch {
    // Not the server's own answer, but that of something in between.
  }
  const later = response.headers.get("retry-after");
  const again = later ? ` Try again in ${later} s.` : "";
  return new ApiError((said ?? `The server answered ${response.status} ${response.statusText}.`) + again, response.status);
}

/** The JSON objects of a stream, up to `[DONE]`. */
export async function* events(response) {
  for await (const data of dataOf(response)) {
    if (data === "[DONE]") return;
    const value = JSON.parse(data);
    if (value.error) throw new ApiError(value.error.message, response.status);
    yield value;
  }
  throw new ApiError("The reply broke off.");
}

async function* dataOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let data = [];
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new ApiError("The connection broke off.");
    });
    if (done) return;
    const lines = (held + value).split("\n");
    held = lines.pop();
    for (const line of lines.map((one) => one.replace(/\r$/, ""))) {
      if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      else if (line === "" && data.length) {
        yield data.join("\n");
        data = [];
      }
    }
  }
}
