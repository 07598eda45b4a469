// The server's API: JSON in, JSON or a stream of JSON out, and problems as sentences.

const KEY = "soupmix.key";

export class Problem extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

export async function call(path, { method = "GET", body, signal } = {}) {
  const response = await send(path, method, body, signal);
  return response.json();
}

/** Every event of a streamed chat. An event that is an error is thrown as `Problem`. */
export async function* chat(body, signal) {
  const wanted = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await send("/v1/chat/completions", "POST", wanted, signal);
  let done = false;
  for await (const data of events(response.body)) {
    done = data === "[DONE]";
    if (done) break;
    const event = JSON.parse(data);
    if (event.error) throw new Problem(event.error.message, response.status, event.error.code);
    yield event;
  }
  if (!done) throw new Problem("The answer broke off: the connection to the server was lost.", 0, "broken");
}

async function send(path, method, body, signal) {
  const response = await reach(path, { method, headers: headers(), signal, body: body && JSON.stringify(body) });
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function reach(path, options) {
  try {
    return await fetch(path, { ...options, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Check that it is running, then try again.", 0, "unreachable");
  }
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  const type = { "Content-Type": "application/json" };
  return key ? { ...type, Authorization: `Bearer ${key}` } : type;
}

async function problemOf(response) {
  const said = await response.json().catch(() => ({}));
  const message = said.error?.message ?? `The server answered with status ${response.status}.`;
  return new Problem(message, response.status, said.error?.code);
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read().catch(lost);
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) yield part.replace(/^data: /, "");
  }
}

function lost(error) {
  if (error.name === "AbortError") throw error;
  return { done: true };
}
