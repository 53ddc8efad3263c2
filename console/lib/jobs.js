// All jobs, kept current by GET /events.
import { events } from "./api.js";
import { useEffect, useState } from "./html.js";

const jobs = new Map();
const listeners = new Set();
let state = { connection: "connecting", error: null, isComplete: false };
let incoming = null;
let stop = null;
let drawing = false;

export const key = (job) => `${job.namespace}/${job.name}`;

export function start() {
  if (stop) stop();
  stop = events("events", {
    onEvents: (batch) => {
      batch.forEach(apply);
      redraw();
    },
    onState: (connection, error = null) => {
      state = { ...state, connection, error };
      redraw();
    },
  });
}

function apply({ name, data }) {
  const known = incoming || jobs;
  if (name === "reset") incoming = new Map();
  if (name === "status") known.set(key(data), data);
  if (name === "progress" && known.has(key(data))) known.set(key(data), { ...known.get(key(data)), ...data });
  if (name === "deleted") known.delete(key(data));
  if (name === "synced" && incoming !== null) {
    jobs.clear();
    incoming.forEach((job, of) => jobs.set(of, job));
    incoming = null;
    state = { ...state, isComplete: true };
  }
}

// At most one update of the page for each frame, however many changes come.
function redraw() {
  if (drawing) return;
  drawing = true;
  const draw = () => {
    drawing = false;
    listeners.forEach((listener) => listener({}));
  };
  if (document.hidden) setTimeout(draw, 1000);
  else requestAnimationFrame(draw);
}

// The jobs, newest first, and the state of the connection.
export function useJobs() {
  const [, update] = useState({});
  useEffect(() => {
    listeners.add(update);
    return () => listeners.delete(update);
  }, []);
  return { jobs, ...state };
}

export function newestFirst(all) {
  return [...all].sort(
    (one, other) =>
      (other.created_at || "").localeCompare(one.created_at || "") ||
      one.name.localeCompare(other.name),
  );
}
