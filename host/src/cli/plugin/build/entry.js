// Calls app.js, and passes what it prints to the host: a plugin has no output of its own.
//
// `trainer plugin build` writes this file.

import { framework as app } from "./app.js";

// Most characters of output: the host takes no more.
const MOST = 8 * 1024;
let output = "";

export const framework = {
  describe() {
    collectOutput();
    return app.describe();
  },

  plan(job) {
    collectOutput();
    const plan = app.plan(job);
    if (output === "") {
      return plan;
    }
    const extensions = { ...JSON.parse(plan.extensions || "{}"), log: output };
    return { ...plan, extensions: JSON.stringify(extensions) };
  },
};

function collectOutput() {
  output = "";
  const print = (...words) => {
    output = (output + words.map(shown).join(" ") + "\n").slice(0, MOST);
  };
  globalThis.console = { log: print, info: print, warn: print, error: print, debug: print };
}

function shown(value) {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
}
