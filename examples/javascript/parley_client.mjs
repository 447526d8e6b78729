/**
 * Asks Parley a question, and reads the answer to its end whatever breaks in between.
 *
 *     node parley_client.mjs http://127.0.0.1:8080 "What is the capital of France?" [chatID]
 *
 * The text goes to stdout, all else to stderr; the exit status is 1 when there is no whole
 * answer. An API key is read from PARLEY_API_KEY. Needs Node 18 or a browser, nothing else
 * (a browser's origin has to be in the gateway's CORS origins). From code:
 *
 *     for await (const event of ask(url, question))
 *       if (event.name === "delta") show(event.data.text);
 */

// Refusals that mean "not now". What was refused may be sent again, under its key.
const PASSING = new Set([408, 409, 429, 502, 503, 504]);
const FIRST_PAUSE = 0.25;

/** There is no whole answer. `code` as in docs/api/errors.md, or `gave_up`. */
export class ParleyError extends Error {
  constructor(code, detail, status = 0, retryAfter = 0) {
    super(`${code}: ${detail}`);
    Object.assign(this, { name: "ParleyError", code, status, retryAfter });
  }
}

/**
 * Yields an answer's events {name, id, data} as docs/api.md has them: `run` once, `queued`,
 * each piece of text once as `delta`, `done` at last.
 *
 * A new chat is made where `chatID` is empty. In seconds: `deadline` for all of it (let it be
 * longer than the option `timeoutSeconds`); `silence` on a connection before it is given up,
 * as something comes every 15 s; `longestPause` between two tries. `signal` ends the reading.
 * Leaving early does not stop the answer, `POST /runs/{runID}/cancel` does.
 *
 * Throws ParleyError: refused, `failed`, or the deadline has passed.
 */
export async function* ask(
  url,
  question,
  {
    chatID = "",
    apiKey = "",
    user = "",
    options,
    deadline = 300,
    silence = 45,
    longestPause = 5,
    signal,
    onRetry = () => {},
  } = {},
) {
  const end = now() + deadline;
  const base = new URL(url).href.replace(/\/+$/, "");
  const path = chatID ? `/chat/${encodeURIComponent(chatID)}/completion` : "/chat";
  const who = new Headers(user ? { "X-User-ID": user } : {});
  if (apiKey) who.set("Authorization", `Bearer ${apiKey}`);
  const begin = new Headers(who);
  begin.set("Content-Type", "application/json");
  // One key for all tries: however often it is sent, it is one question.
  begin.set("Idempotency-Key", await newKey());
  const body = JSON.stringify({ message: question, stream: true, options });

  let run = "";
  let position = "0";
  let pause = FIRST_PAUSE;
  for (;;) {
    let target = base + path;
    let request = { method: "POST", headers: begin, body };
    if (run) {
      target = `${base}/runs/${run}/events`;
      request = { headers: new Headers([...who, ["Last-Event-ID", position]]) };
    }
    let wait = 0;
    let why = "the stream ended early";
    try {
      for await (const event of eventsOf(target, request, { end, silence, signal })) {
        if (event.name === "failed") throw errorOf(event.data);
        if (event.name === "delta") position = event.id;
        if (event.name === "run") {
          if (run) continue; // Told again at the beginning of each stream.
          run = event.data.runID;
        }
        if (event.name !== "queued") pause = FIRST_PAUSE;
        yield event;
        if (event.name === "done") return;
      }
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (error instanceof ParleyError) {
        if (!PASSING.has(error.status)) throw error;
        wait = error.retryAfter;
      } else if (!(error instanceof Broken)) {
        throw error;
      }
      why = error.message;
    }
    // Not all at once: clients that lost the same server come back spread out.
    wait = Math.max(wait, Math.min(pause, longestPause) * (0.5 + Math.random() / 2));
    pause *= 2;
    if (now() + wait >= end) {
      throw new ParleyError("gave_up", `run ${run || "not begun"}, byte ${position}: ${why}`);
    }
    onRetry(`${why} at byte ${position}; trying again in ${wait.toFixed(1)} s`);
    await sleep(wait, signal);
  }
}

/** The connection, or what came over it, went; the answer did not. */
class Broken extends Error {}

const broken = (error) => {
  throw new Broken(error?.cause?.message ?? error?.message ?? String(error));
};

/** Yields the whole events of one response; a broken one at its end is dropped. */
async function* eventsOf(target, request, { end, silence, signal }) {
  const given = new AbortController();
  const leave = () => given.abort(signal.reason);
  let timer;
  const bounded = (promise) => {
    clearTimeout(timer);
    const seconds = Math.max(0, Math.min(silence, end - now()));
    timer = setTimeout(() => given.abort(new Error("nothing came in time")), 1000 * seconds);
    return promise.catch(broken).finally(() => clearTimeout(timer));
  };
  if (signal?.aborted) throw signal.reason;
  signal?.addEventListener("abort", leave);
  try {
    const response = await bounded(fetch(target, { ...request, signal: given.signal }));
    if (response.status !== 200 && response.status !== 201) {
      throw refusal(response, await bounded(response.text()));
    }
    const reader = response.body.getReader();
    const decoder = new TextDecoder(); // A character may be in two chunks.
    let rest = "";
    for (;;) {
      const { done, value } = await bounded(reader.read());
      if (done) return;
      const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split("\n").map(fieldOf));
        if (fields.data === undefined) continue; // A comment, which keeps the connection.
        yield { name: fields.event, id: fields.id, data: JSON.parse(fields.data) };
      }
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", leave);
    given.abort();
  }
}

function fieldOf(line) {
  const colon = line.indexOf(": ");
  return [line.slice(0, colon), line.slice(colon + 2)];
}

function refusal(response, text) {
  let problem;
  try {
    problem = JSON.parse(text);
  } catch {
    problem = null; // Of something in between, not of Parley.
  }
  if (!problem?.code) problem = { code: "refused", title: `HTTP ${response.status}` };
  const after = response.headers.get("Retry-After") ?? "";
  return errorOf(problem, response.status, /^\d+$/.test(after) ? Number(after) : 0);
}

function errorOf(problem, status, retryAfter) {
  return new ParleyError(problem.code, problem.detail ?? problem.title, status, retryAfter);
}

/** Seconds on a clock that is never set back. */
function now() {
  return performance.now() / 1000;
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const wake = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", wake);
      if (signal?.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(wake, 1000 * seconds);
    signal?.addEventListener("abort", wake);
  });
}

async function newKey() {
  // Node 18 has it in a module; browsers have randomUUID on https alone, this everywhere.
  const crypto = globalThis.crypto ?? (await import("node:crypto")).webcrypto;
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function main([url, question, chatID]) {
  if (!url || !question) {
    console.error('usage: node parley_client.mjs URL "question" [chatID]');
    return 2;
  }
  const apiKey = process.env.PARLEY_API_KEY ?? "";
  try {
    for await (const event of ask(url, question, { chatID, apiKey, onRetry: console.error })) {
      if (event.name === "delta") process.stdout.write(event.data.text);
      if (event.name === "run") console.error(`run ${event.data.runID} in chat ${event.data.chatID}`);
    }
  } catch (error) {
    if (!(error instanceof ParleyError || error.code === "ERR_INVALID_URL")) throw error;
    console.error(error.message);
    return 1;
  }
  return 0;
}

async function isCommand() {
  if (typeof process === "undefined" || !process.argv?.[1]) return false;
  const { existsSync, realpathSync } = await import("node:fs");
  const { pathToFileURL } = await import("node:url");
  const [, file] = process.argv;
  return existsSync(file) && import.meta.url === pathToFileURL(realpathSync(file)).href;
}

if (await isCommand()) process.exitCode = await main(process.argv.slice(2));
