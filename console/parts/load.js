// Loading what a page shows.
import { useEffect, useState } from "../lib/html.js";

// The result of `load`, which is called again when one of `inputs` changes.
export function useLoaded(load, inputs) {
  const [state, set] = useState({ value: undefined, error: null });
  const [turn, again] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    load(controller.signal).then(
      (value) => !controller.signal.aborted && set({ value, error: null }),
      (error) => !controller.signal.aborted && set((before) => ({ ...before, error })),
    );
    return () => controller.abort();
  }, [...inputs, turn]);
  return { ...state, reload: () => again((turn) => turn + 1) };
}

// The time, for ages that grow while one looks.
export function useNow(every = 1000) {
  const [now, set] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => set(Date.now()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}
