// The log of a run: replica, search, and follow.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/html.js";
import { jobPath, pieces } from "../lib/api.js";
import { visible } from "../lib/format.js";
import { Failure } from "./notices.js";
import { hasEnded } from "./job.js";

const TAIL = 2000;
const MOST_LINES = 5000;
const RECONNECT = 2000;

export function Log({ job }) {
  const replicas = (job.pods || []).map((pod) => pod.replica);
  const [replica, choose] = useState("");
  const [follow, setFollow] = useState(!hasEnded(job));
  const [previous, setPrevious] = useState(false);
  const [search, setSearch] = useState("");
  const { lines, error, isDone } = useLog(job, { replica, follow: follow && !previous, previous });
  const found = search ? lines.filter((line) => line.toLowerCase().includes(search.toLowerCase())) : lines;
  const place = useRef(null);
  const atEnd = useRef(true);
  useLayoutEffect(() => {
    if (atEnd.current && place.current) place.current.scrollTop = place.current.scrollHeight;
  });
  const scrolled = ({ target }) => {
    atEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < 40;
  };
  return html`
    <div class="filters">
      <select aria-label="Replica" value=${replica} onChange=${(event) => choose(event.target.value)}>
        <option value="">first replica</option>
        ${replicas.length > 1 && html`<option value="all">all replicas</option>`}
        ${replicas.map((name) => html`<option key=${name} value=${name}>${visible(name)}</option>`)}
      </select>
      <input type="search" aria-label="Search the log" placeholder="Search the log" value=${search} onInput=${(event) => setSearch(event.target.value)} />
      <label><input type="checkbox" checked=${follow} disabled=${previous} onChange=${(event) => setFollow(event.target.checked)} /> Follow</label>
      <label><input type="checkbox" checked=${previous} onChange=${(event) => setPrevious(event.target.checked)} /> Before the last restart</label>
    </div>
    ${error && html`<${Failure} error=${error} />`}
    <div class="log" role="log" tabindex="0" aria-label="Log" ref=${place} onScroll=${scrolled}>
      ${found.map((line, at) => html`<p key=${at}>${marked(line, search)}</p>`)}
      ${found.length === 0 && html`<p class="muted">${search ? "No line matches." : isDone ? "The log is empty." : "Nothing written yet."}</p>`}
    </div>
    <p class="muted" role="status">${search ? `${found.length} of ${lines.length} lines` : `${lines.length} lines`}${lines.length >= TAIL ? ", the newest ones" : ""}</p>`;
}

function marked(line, search) {
  const at = search ? line.toLowerCase().indexOf(search.toLowerCase()) : -1;
  if (at < 0) return line;
  const end = at + search.length;
  return [line.slice(0, at), html`<mark>${line.slice(at, end)}</mark>`, line.slice(end)];
}

function useLog(job, { replica, follow, previous }) {
  const [state, set] = useState({ lines: [], error: null, isDone: false });
  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    const query = { tail: TAIL, ...(replica && { replica }), ...(follow && { follow }), ...(previous && { previous }) };
    let all = [];
    let rest = "";
    let drawing = 0;
    const draw = () => {
      drawing = 0;
      if (!signal.aborted) set({ lines: rest ? [...all, visible(rest)] : all, error: null, isDone: false });
    };
    const add = (piece) => {
      const lines = (rest + piece).split("\n");
      rest = lines.pop();
      all = [...all, ...lines.map(visible)].slice(-MOST_LINES);
      drawing ||= setTimeout(draw, 100);
    };
    const read = async () => {
      for (;;) {
        all = [];
        rest = "";
        try {
          await pieces(jobPath(job, "/logs", query), { signal }, add);
          clearTimeout(drawing);
          draw();
          set((before) => ({ ...before, isDone: true }));
          return;
        } catch (error) {
          if (signal.aborted) return;
          if (error.status) {
            set({ lines: [], error, isDone: true });
            return;
          }
          await new Promise((resolve) => setTimeout(resolve, RECONNECT));
        }
      }
    };
    set({ lines: [], error: null, isDone: false });
    read();
    return () => controller.abort();
  }, [job.namespace, job.name, replica, follow, previous]);
  return state;
}
