// The curves of a run, which grow while it runs.
import { events, json, jobPath } from "./api.js";
import { useEffect, useState } from "./html.js";

const MOST_POINTS = 2000;

export function useCurves(job) {
  const [state, set] = useState({ curves: null, error: null });
  const isOver = job.status === "succeeded" || job.status === "failed";
  useEffect(() => {
    const controller = new AbortController();
    const fail = (error) => controller.signal.aborted || set((before) => ({ ...before, error }));
    if (isOver) {
      const loaded = (curves) => set({ curves, error: null });
      json(jobPath(job, "/metrics"), { signal: controller.signal }).then(loaded, fail);
      return () => controller.abort();
    }
    // The stream begins with what is there; until then there is nothing to show.
    set((before) => before.curves ? before : { curves: { points: [], evaluations: [] }, error: null });
    let isFirst = true;
    const stop = events(jobPath(job, "/metrics", { follow: true }), {
      onEvents: (batch) => {
        for (const { name, data } of batch) {
          if (name === "end") return false;
          const whole = isFirst;
          isFirst = false;
          set(({ curves }) => ({ curves: whole ? data : merged(curves, data), error: null }));
        }
        return true;
      },
      onState: (connection, error) => {
        if (connection === "lost") isFirst = true;
        if (error?.status) fail(error);
      },
    });
    return () => {
      controller.abort();
      stop();
    };
  }, [job.namespace, job.name, isOver]);
  return state;
}

// A later attempt replaces the steps from its first on.
function merged(before, more) {
  const joined = (old, added) => {
    const from = added.length > 0 ? added[0].step : Infinity;
    return thinned([...old.filter(({ step }) => step < from), ...added]);
  };
  return { points: joined(before.points, more.points), evaluations: joined(before.evaluations, more.evaluations) };
}

function thinned(points) {
  if (points.length <= MOST_POINTS) return points;
  return points.filter((_, at) => at % 2 === 0 || at === points.length - 1);
}
