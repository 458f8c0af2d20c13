// Requests to the server: JSON in and out, a key if it asks for one, and problems in words.

const SLOW = 60_000; // milliseconds until a request is given up

/** Why a request failed, in words for the person at the page. */
export class Problem extends Error {
  constructor(kind, message, hint = "", retryAfter = null) {
    super(message);
    this.kind = kind;
    this.hint = hint;
    this.retryAfter = retryAfter; // seconds
  }
}

/** Thrown when a request was overtaken by another; nobody needs to hear of it. */
export function isAborted(error) {
  return error?.name === "AbortError";
}

const KEY = "idiolect.key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

let asking = null; // the open question for a key, shared by all requests that wait for it

function askForKey(wrong) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key");
    const field = document.getElementById("key-value");
    const cancel = document.getElementById("key-cancel");
    if (wrong) {
      document.getElementById("key-reason").textContent =
        "The server did not accept that key. Check it, or ask the owner for a new one.";
    }
    field.value = "";
    dialog.returnValue = "";
    const close = () => dialog.close("");
    cancel.addEventListener("click", close);
    dialog.addEventListener("close", function closed() {
      dialog.removeEventListener("close", closed);
      cancel.removeEventListener("click", close);
      const given = field.value.trim();
      field.value = "";
      asking = null;
      resolve(dialog.returnValue === "given" ? given : null);
    });
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close("given");
    };
    dialog.showModal();
  });
  return asking;
}

/**
 * Send a request and return the response; `send` reads JSON from it. A request with a body is a
 * POST. `signal` aborts it.
 */
export async function open(path, { body, signal } = {}) {
  for (;;) {
    const used = key.get();
    const response = await once(path, body, signal, used);
    if (response.ok) return response;
    if (response.status !== 401) throw await problemOf(response);
    if (key.get() === used) {
      const given = await askForKey(used !== null);
      if (!given) throw new Problem("key", "This server answers only with a key.");
      key.set(given);
    }
    signal?.throwIfAborted();
  }
}

/** Send a request and return the JSON of the answer. */
export async function send(path, options) {
  const response = await open(path, options);
  try {
    return await response.json();
  } catch (error) {
    if (isAborted(error)) throw error;
    throw new Problem("server", "The server's answer cannot be read.", "Is it an idiolect server?");
  }
}

/** Yield the JSON of each event of a stream, as it comes. */
export async function* stream(path, options) {
  const { body } = await open(path, options);
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Problem("server", "The answer was cut off.", "Try again.");
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const sent = JSON.parse(data);
        if (sent.error) throw new Problem("server", sentence(sent.error.message), sentence(sent.error.hint));
        yield sent;
      }
    }
  } catch (error) {
    if (isAborted(error) || error instanceof Problem) throw error;
    throw new Problem("server", "The answer was cut off.", "Try again.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function once(path, body, signal, used) {
  const headers = {};
  if (used !== null) headers.Authorization = `Bearer ${used}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const timeout = AbortSignal.timeout(SLOW);
  try {
    return await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      cache: "no-store",
    });
  } catch (error) {
    if (timeout.aborted) {
      throw new Problem("slow", `The server did not answer within ${SLOW / 1000} seconds.`);
    }
    if (isAborted(error)) throw error;
    throw new Problem("away", "The server cannot be reached.", "Is it running?");
  }
}

const WORDS = {
  403: ["forbidden", "Your key does not allow this."],
  404: ["missing", "There is no such thing on this server."],
  413: ["refused", "This is more than the server takes at once."],
  429: ["busy", "The server is busy."],
  503: ["busy", "The server is not ready."],
};

async function problemOf(response) {
  const [kind, words] =
    WORDS[response.status] ??
    (response.status < 500
      ? ["refused", "The server did not accept this."]
      : ["server", "Something went wrong on the server."]);
  let message = words;
  let hint = "";
  try {
    const { error } = await response.json();
    if (typeof error?.message === "string") message = error.message;
    if (typeof error?.hint === "string") hint = error.hint;
  } catch {
    // Not the server's own error, such as a proxy's page: the status says enough.
  }
  const seconds = Number.parseFloat(response.headers.get("Retry-After"));
  const wait = kind === "busy" ? (Number.isFinite(seconds) ? seconds : 2) : null;
  return new Problem(kind, sentence(message), sentence(hint), wait);
}

function sentence(text) {
  if (!text) return "";
  const start = text[0].toUpperCase() + text.slice(1);
  return /[.?!]$/.test(start) ? start : `${start}.`;
}
