// Serves one JavaScript function as an agent: amesh_shim.mjs FILE.mjs[:NAME]. Speaks spec/local-api.md 2-4 on AMESH_FD or AMESH_SOCK. Node >= 18, no packages.
// The function is called with (text, task): a function, an async function or a generator of either kind; without a name `default`, else `agent`. stdout is its own.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";

const LINE_MAX = 1 << 20, PIECE = 48 << 10, FILE_MAX = 64 << 10, ABANDON_MS = 3000, CANCELED = -32800;
const TYPES = ["text", "reasoning", "tool_call", "tool_result", "step", "artifact", "status", "usage", "log", "custom"];
const ENDS = { TASK_STATE_FAILED: [3001, "task_failed"], TASK_STATE_REJECTED: [3002, "rejected"], TASK_STATE_CANCELED: [3003, "canceled"] };
const OUTCOME = ["state", "text", "data", "parts", "artifacts", "message", "retryAfterMs"];
const runs = new Map(), waiting = new Map();
let socket, card, numbers = 0, isDraining = false, isStopping = false;

// What the mesh refused says it itself; that somebody else's task failed is said once, however deep it was.
const describe = (e) => (!(e instanceof Error) ? String(e) : e.name === "MeshError" || e.message.startsWith(`${e.name}: `) ? e.message : `${e.name}: ${e.message}`).slice(0, 8000);

// The reason is the last line of stderr, which is what the sidecar shows.
function refuse(reason, status = 2) {
  process.stderr.write(`amesh: ${reason.replace(/\s+/g, " ")}\n`);
  process.exit(status);
}

// ---- the connection

// What waits for the promise goes on when the sidecar has read.
function write(frame) {
  const line = JSON.stringify(frame).replace(/\\(\\|ud[89a-f][0-9a-f]{2})/g, (all, what) => (what === "\\" ? all : "\ufffd")) + "\n"; // half characters
  const bytes = Buffer.byteLength(line);
  if (bytes > LINE_MAX) throw new RangeError(`${frame.method ?? "the outcome"} has ${bytes} bytes; a line of the local API may have ${LINE_MAX}; what is large is given by task.artifact, as text, bytes or path`);
  return socket.destroyed || socket.write(line) ? undefined : once(socket, "drain").then(() => {}, () => {});
}

function request(method, params) {
  const id = ++numbers;
  write({ id, method, params });
  return new Promise((done, fail) => waiting.set(id, { done, fail }));
}

function answered({ id, result, error }) {
  const asked = waiting.get(id);
  if (id === null) process.stderr.write(`amesh: the sidecar did not understand a line: ${error?.message}\n`);
  waiting.delete(id);
  if (!asked || !error) return asked?.done(result);
  const { code, name, hint } = error.data ?? {};
  asked.fail(Object.assign(new Error(error.message + (hint ? ` (${hint})` : "")), { name: "MeshError", code, reason: name, hint }));
}

// ---- a task

class Result {
  constructor(task) {
    const wire = task.metadata?.["amp/error"], texts = (parts) => (parts ?? []).map((p) => p.text ?? "").join("");
    if (!["TASK_STATE_COMPLETED", "TASK_STATE_SUBMITTED"].includes(task.status?.state)) { // submitted: it was detached
      const error = new Error(texts(task.status?.message?.parts) || wire?.message || task.status?.state);
      const [code, reason] = wire?.code ? [wire.code, wire.name] : ENDS[task.status?.state] ?? [];
      throw Object.assign(error, { name: "TaskFailed", code: code && `AMESH-${code}`, reason, hint: wire?.hint, task });
    }
    this.text = (task.artifacts ?? []).filter((a) => a.artifactId === "response").map((a) => texts(a.parts)).join("");
    this.task = task;
  }
  toString() { return this.text; }
}

// Pieces of at most PIECE units that do not cut a character.
function split(text) {
  const pieces = [];
  for (let at = 0, to; at < text.length; at = to) {
    to = Math.min(at + PIECE, text.length);
    if (to < text.length && /[\ud800-\udbff]/.test(text[to - 1])) to--;
    pieces.push(text.slice(at, to));
  }
  return pieces;
}

class Task {
  #abort = new AbortController();
  #told = false;
  #answered = []; // parts that are files
  #calls = 0;
  streamed = false;
  constructor({ taskId, contextId, text, message, attempt, from, skill, parent, timeoutMs, meta, resume }) {
    Object.assign(this, { id: taskId, context: contextId, text, message, attempt, sender: from, skill, parent, timeoutMs, meta: meta ?? {}, resume });
    this.signal = this.#abort.signal;
    this.kv = { // scope: context, agent, shared; get of what is not there → undefined
      get: (key, scope = "context") => this.#ask("kv.get", { scope, key }).then((r) => r.value, (e) => { if (e.reason !== "not_found") throw e; }),
      put: (key, value, scope = "context", ifVersion = undefined) => this.#ask("kv.put", { scope, key, value, ifVersion }).then((r) => r.version),
      delete: (key, scope = "context") => this.#ask("kv.del", { scope, key }).then(() => {}, (e) => { if (e.reason !== "not_found") throw e; }),
      list: (scope = "context", prefix = "") => this.#ask("kv.list", { scope, key: prefix }).then((r) => r.entries),
    };
  }
  get canceled() { return this.signal.aborted; }
  cancel() { this.#abort.abort(Object.assign(new Error("the task was cancelled"), { name: "AbortError" })); }
  throwIfCanceled() { this.#told ||= this.canceled; this.signal.throwIfAborted(); }
  #check() { if (!this.#told) this.throwIfCanceled(); } // throws once: what cleans up afterwards can still tell about it
  async #ask(method, params) {
    this.#check();
    let give;
    const gone = new Promise((_, fail) => this.signal.addEventListener("abort", give = () => { this.#told = true; fail(this.signal.reason); }));
    try { return await Promise.race([request(method, { taskId: this.id, ...params }), gone]); }
    finally { this.signal.removeEventListener("abort", give); }
  }
  // Text of the answer, or an event of local-api.md 4. To await it is to go no faster than the sidecar reads.
  emit(event) {
    this.#check();
    if (event?.type === "text" && typeof event.text === "string") event = event.text;
    const send = (e) => runs.get(this.id)?.task === this && write({ method: "task.event", params: { taskId: this.id, event: e } }) || undefined;
    if (typeof event === "string") {
      this.streamed ||= event !== "";
      return split(event).map((text) => send({ type: "text", text })).pop();
    }
    if (!TYPES.includes(event?.type)) throw new TypeError(`an event is a text, or an object with a type of ${TYPES.join(", ")}; not ${JSON.stringify(event)?.slice(0, 80)}`);
    return send(event);
  }
  // → an error to be thrown by an agent that can take nothing now (a rate limit of its model): load, and no failure. Any error with `busy: true` (and `retryAfterMs`) says the same.
  busy(message = "", retryAfterMs = undefined) { return Object.assign(new Error(message), { name: "Busy", busy: true, retryAfterMs }); }
  status(text) { return this.emit({ type: "status", text }); }
  log(level, text) { return this.emit({ type: "log", level, text }); }
  // → {id, result(output, isError)}; with a function: calls it and tells what it gave or threw.
  tool(name, args = {}, run = undefined) {
    const callId = `c${++this.#calls}`;
    this.emit({ type: "tool_call", callId, name, args });
    const result = (output = null, isError = false) => this.emit({ type: "tool_result", callId, name, output, isError });
    const failed = (e) => { result(describe(e), true); throw e; };
    return run ? Promise.resolve().then(() => run(args)).then((output) => { result(output); return output; }, failed) : { id: callId, result };
  }
  async step(name, run) {
    this.emit({ type: "step", name, phase: "start" });
    try { return await run(); } finally { this.emit({ type: "step", name, phase: "end" }); }
  }
  // The sidecar reads the file of the part.
  #file(name, description, part) {
    return this.#ask("task.event", { event: { type: "artifact", artifactId: name, name, description, parts: [part], last: true } });
  }
  // {text}, {bytes} or {path}, each of any size, or {data}. A file, and bytes beyond 64 KiB, have been taken in when the promise is kept.
  artifact(name, { text, data = null, bytes, path, filename, mediaType, description }) {
    if (path !== undefined) filename ??= basename(path);
    if (path !== undefined && statSync(path).size > FILE_MAX) return this.#file(name, description, { file: resolve(path), filename, mediaType });
    const given = path !== undefined ? readFileSync(path) : bytes && Buffer.from(bytes);
    if (given?.length > FILE_MAX) {
      const file = join(tmpdir(), `amesh-${randomUUID()}`);
      writeFileSync(file, given, { flag: "wx", mode: 0o600 });
      const taken = this.#file(name, description, { file, filename, mediaType }).finally(() => rmSync(file, { force: true }));
      taken.catch(() => {}); // who does not wait for it learns from the task's end
      return taken;
    }
    const raw = given && [{ raw: given.toString("base64"), filename, mediaType }];
    const bodies = raw ? [{ parts: raw }] : text === undefined ? [{ data, filename, mediaType }] : (text ? split(text) : [""]).map((t) => ({ text: t, filename, mediaType }));
    return bodies.map((b, i) => this.emit({ type: "artifact", artifactId: name, name, description, ...b, append: i > 0, last: i === bodies.length - 1 })).pop();
  }
  // A text (of a file it is empty, and `files` has the file); with options the value of one (with `multiple` a list of them), with a schema what fits it. After expiresMs the default, or an error with the reason "expired".
  async ask(prompt, { options, schema, expiresMs, default: fallback, multiple, other } = {}) {
    const answer = await this.#ask("task.ask", { prompt, options, schema, expiresMs, default: fallback, multiple, other });
    this.#answered.push(...answer.message?.parts?.filter(({ url, raw }) => raw !== undefined || url?.startsWith("file://")) ?? []);
    return "value" in answer ? answer.value : answer.text;
  }
  // → {text, task}; throws TaskFailed {code, reason, hint, task}.
  async send(to, text, { skill, context, timeoutMs, durable, key, detach } = {}) {
    return new Result(await this.#ask("send", { to: to ?? undefined, skill, text, contextId: context, timeoutMs, durable, key, detach }));
  }
  // Files that came with the task, and behind them those of answers: {name, mediaType, path} or, if small, {…, bytes}.
  get files() {
    return [...this.message.parts, ...this.#answered].flatMap(({ url, raw, filename: name, mediaType }) => url?.startsWith("file://") ? [{ name, mediaType, path: fileURLToPath(url) }]
      : raw !== undefined ? [{ name, mediaType, bytes: Buffer.from(raw, "base64") }] : []);
  }
  sleep(ms) { return sleep(ms, undefined, { signal: this.signal }).catch((e) => { this.#told ||= this.canceled; throw e; }); }
}

// ---- running one

async function drain(task, items) {
  let parts = 0;
  for (;;) {
    const { done, value } = await items.next();
    if (done) return value;
    try {
      if (typeof value === "string" || value?.type !== undefined) await task.emit(value);
      else if (value !== undefined && value !== null) await task.artifact(`data-${++parts}`, { data: value });
    } catch (e) {
      await items.return?.();
      throw e;
    }
  }
}

async function call(fn, task) {
  const result = await fn(task.text, task);
  if (typeof result?.[Symbol.asyncIterator] === "function") return drain(task, result[Symbol.asyncIterator]());
  return typeof result?.next === "function" ? drain(task, result) : result;
}

function outcome(task, result) {
  if (result instanceof Result) result = result.text;
  if (result === undefined || result === null || (typeof result === "string" && task.streamed)) return null;
  if (typeof result === "string") return result.length <= PIECE ? result : (task.emit(result), null);
  const keys = Object.keys(result);
  if (typeof result !== "object" || Array.isArray(result) || !keys.length || !keys.every((k) => OUTCOME.includes(k))) return { data: result };
  return typeof result.text === "string" ? { ...result, text: outcome(task, result.text) } : result;
}

async function serve(fn, id, params) {
  const task = new Task(params), run = { task };
  runs.set(task.id, run);
  const work = call(fn, task);
  // Nobody can stop a function that does not look: it is left alone, and what it still says is dropped.
  const left = new Promise((_, fail) => task.signal.addEventListener("abort", () => setTimeout(fail, ABANDON_MS, task.signal.reason).unref()));
  try {
    await write({ id, result: outcome(task, await Promise.race([work, left])) });
  } catch (e) {
    if (e?.busy === true) {
      write({ id, result: { state: "busy", message: String(e.message ?? "").slice(0, 8000), retryAfterMs: e.retryAfterMs > 0 ? Math.trunc(e.retryAfterMs) : undefined } });
      return;
    }
    const isCanceled = task.canceled && (e === task.signal.reason || e?.name === "AbortError" || e?.name === "TaskFailed"); // its children end with it
    if (!isCanceled) process.stderr.write(`${e?.stack ?? e}\n`);
    work.catch(() => {});
    if (!(isCanceled && isStopping)) // then it was not the caller who took the task back
      write({ id, error: { code: isCanceled ? CANCELED : -32000, message: isCanceled ? "the task was cancelled" : describe(e) } });
  } finally {
    if (runs.get(task.id) === run) runs.delete(task.id);
    if (!runs.size && (isDraining || isStopping)) leave();
  }
}

// ---- the process

const leave = () => socket.destroyed ? process.exit(0) : socket.end(() => process.exit(0));

function stop() {
  if (isStopping) return;
  isStopping = true;
  for (const { task } of runs.values()) task.cancel();
  setTimeout(leave, runs.size ? ABANDON_MS + 500 : 0);
}

function take(fn, line) {
  const frame = JSON.parse(line), { id, method, params = {} } = frame;
  if (!method) answered(frame);
  else if (method === "task.run") serve(fn, id, params);
  else if (method === "task.cancel") runs.get(params.taskId)?.task.cancel();
  else if (method === "drain") { isDraining = true; if (!runs.size) leave(); }
  else if (method === "ping") write({ id, result: {} });
  else if (id !== undefined) write({ id, error: { code: -32601, message: `there is no method ${method}` } });
}

async function load(target) {
  const [, file, name] = /^(.*?\.[cm]?[jt]s)(?::(.*))?$/.exec(target ?? "") ?? refuse("usage: amesh_shim.mjs FILE.mjs[:NAME]");
  const path = resolve(file);
  if (!existsSync(path)) refuse(`${path}: no such file`);
  let module;
  try {
    module = await import(pathToFileURL(path));
  } catch (e) {
    process.stderr.write(`${e?.stack ?? e}\n`);
    refuse(`${path} cannot be loaded: ${describe(e)}`);
  }
  const all = { ...(typeof module.default === "object" ? module.default : {}), ...module };
  let found = name ? name.split(".").reduce((at, part) => at?.[part], all) : module.default?.default ?? module.default ?? module.agent;
  if (found === undefined) refuse(`${path} exports no ${name || "default"}; it exports ${Object.keys(all).join(", ") || "nothing"}`);
  if (typeof found === "function" && /^class\b/.test(Function.prototype.toString.call(found))) found = new found();
  card = typeof found?.card === "object" ? found.card : typeof found?.description === "string" ? { description: found.description } : undefined;
  const method = typeof found === "function" ? null : ["run", "handle"].find((m) => typeof found?.[m] === "function");
  if (method) return found[method].bind(found);
  return typeof found === "function" ? found : refuse(`${path}:${name || "default"} is no function and has no method run or handle`);
}

process.on("unhandledRejection", (e) => { process.stderr.write(`${e?.stack ?? e}\n`); refuse(`unhandled rejection: ${describe(e)}`, 1); });
process.on("uncaughtException", (e) => { process.stderr.write(`${e?.stack ?? e}\n`); refuse(`uncaught exception: ${describe(e)}`, 1); });
const { AMESH_FD: fd, AMESH_SOCK: path } = process.env, concurrency = Number(process.env.AMESH_CONCURRENCY) || 1;
delete process.env.AMESH_FD;
if (!fd && !path) refuse("neither AMESH_FD nor AMESH_SOCK is set; start the agent with `amesh run FILE.mjs:NAME`");
const fn = await load(process.argv[2]);
socket = fd ? new net.Socket({ fd: Number(fd), readable: true, writable: true }) : net.connect(path);
socket.setMaxListeners(0);
socket.on("error", stop).on("close", stop);
let rest = []; // of a line; not readline, for which U+2028 ends one
socket.on("data", (chunk) => {
  for (let at; (at = chunk.indexOf(10)) >= 0; chunk = chunk.subarray(at + 1), rest = []) take(fn, Buffer.concat([...rest, chunk.subarray(0, at)]).toString());
  if (chunk.length) rest.push(chunk);
});
process.on("SIGTERM", stop).on("SIGINT", stop);
request("hello", { proto: 1, role: "worker", concurrency, card, framework: "javascript", features: ["text", "events", "ask", "cancel", "drain"] })
  .catch((e) => refuse(`the sidecar does not take this agent: ${e.message}`, 1));
