// Requests to the service that this page comes from.

const TOKEN = "trainer-token";
const RECONNECT = 1000;
const UNSEEN = 5000;
const listeners = new Set();

// A refusal of the service, or that it does not answer.
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || "the service does not answer");
    this.status = status;
    this.findings = problem.errors || [];
    this.requestId = problem.instance;
  }
}

// The token lives as long as the tab.
export function setToken(entered) {
  if (entered) sessionStorage.setItem(TOKEN, entered);
  else sessionStorage.removeItem(TOKEN);
}

export function token() {
  return sessionStorage.getItem(TOKEN);
}

// Calls back when the service asks for a token.
export function onUnauthorized(listener) {
  listeners.add(listener);
}

export function jobPath(job, rest = "", query = {}) {
  const parameters = new URLSearchParams({ namespace: job.namespace, ...query });
  return `train/${encodeURIComponent(job.name)}${rest}?${parameters}`;
}

async function send(path, { method = "GET", body, headers = {}, signal } = {}) {
  const given = { Accept: "application/json", ...headers };
  if (token()) given["X-TRAINER-TOKEN"] = token();
  if (body !== undefined) given["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, signal, headers: given, cache: "no-cache",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { detail: "The service cannot be reached. Is it running?" });
  }
  if (response.ok || response.status === 304) return response;
  if (response.status === 401) listeners.forEach((listener) => listener());
  const problem = await response.json().catch(() => ({ detail: `HTTP status ${response.status}` }));
  throw new Refusal(response.status, problem);
}

export async function json(path, options) {
  const response = await send(path, options);
  return response.status === 204 ? null : response.json();
}

export async function text(path, options = {}) {
  return (await send(path, { ...options, headers: { Accept: "*/*", ...options.headers } })).text();
}

// Reads pieces of text as they come, until the stream ends or the signal aborts.
export async function pieces(path, { signal, headers, onOpen = () => {} }, onPiece) {
  const response = await send(path, { signal, headers: { Accept: "*/*", ...headers } });
  if (response.status === 204) return;
  onOpen();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onPiece(value);
  }
}

// Server-sent events, with the token that EventSource cannot send. Reconnects until `stop` is
// called, a handler returns false, or the service refuses. A page that nobody sees lets go of its
// connection: browsers open only six to one service.
export function events(path, { onEvents, onState = () => {} }) {
  let last = null;
  let isOver = false;
  let connection = new AbortController();
  let leaving = 0;
  const end = () => {
    isOver = true;
    document.removeEventListener("visibilitychange", seen);
    connection.abort();
  };
  const seen = () => {
    clearTimeout(leaving);
    if (document.hidden) leaving = setTimeout(() => connection.abort(), UNSEEN);
  };
  const read = async () => {
    let rest = "";
    const headers = last === null ? {} : { "Last-Event-ID": last };
    const onOpen = () => onState("live");
    await pieces(path, { signal: connection.signal, headers, onOpen }, (piece) => {
      const parts = (rest + piece).split("\n\n");
      rest = parts.pop();
      const batch = parts.map(event).filter((one) => one !== null);
      for (const { id } of batch) if (id !== undefined) last = id;
      if (batch.length > 0 && onEvents(batch) === false) end();
    });
  };
  const run = async () => {
    while (!isOver) {
      try {
        await visible();
        if (isOver) return;
        connection = new AbortController();
        await read();
        onState("lost");
      } catch (error) {
        if (isOver) return;
        onState("lost", connection.signal.aborted ? undefined : error);
        if (error.status === 401 || error.status === 404) return;
      }
      await new Promise((resolve) => setTimeout(resolve, RECONNECT));
    }
  };
  document.addEventListener("visibilitychange", seen);
  run();
  return end;
}

// Waits until somebody sees the page.
function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", () => resolve(visible()), { once: true });
  });
}

function event(block) {
  const read = {};
  let data = null;
  for (const line of block.split("\n")) {
    const [, field, value] = /^([a-z]+): ?(.*)$/.exec(line) || [];
    if (field === "data") data = data === null ? value : `${data}\n${value}`;
    else if (field) read[field] = value;
  }
  return data === null ? null : { name: read.event, id: read.id, data: JSON.parse(data) };
}
