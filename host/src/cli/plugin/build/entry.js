// Calls app.js, and passes what it prints and throws to the host: a plugin has no output of its own.
//
// `trainer plugin build` writes this file.

import { framework as app } from "./app.js";

// Most characters of output, and of an exception: the host takes no more.
const MOST = 8 * 1024;
const MOST_OF_EXCEPTION = 4 * 1024;
const DESCRIPTION = ["name", "version", "summary", "argsSchema"];
const PLAN = ["command", "environment", "layout", "resolvedArgs", "warnings", "extensions"];
let output = "";

export const framework = {
  describe() {
    collectOutput();
    try {
      return complete(app.describe(), DESCRIPTION, "describe()");
    } catch (error) {
      // What the host takes for an exception: a description without name and schema.
      return { name: "", version: "", summary: shownException(error), argsSchema: "" };
    }
  },

  plan(job) {
    collectOutput();
    let plan;
    try {
      plan = complete(app.plan(job), PLAN, "plan()");
    } catch (error) {
      if (Array.isArray(error)) {
        throw error; // findings: the plugin refuses the job
      }
      return failedPlan(error);
    }
    if (output === "") {
      return plan;
    }
    const extensions = { ...JSON.parse(plan.extensions || "{}"), log: output };
    return { ...plan, extensions: JSON.stringify(extensions) };
  },
};

// Checks that an answer has all members, which a wrong spelling would leave out.
function complete(answer, members, name) {
  const missing = members.filter((member) => answer?.[member] === undefined);
  if (missing.length > 0) {
    throw new TypeError(`the result of ${name} has no ${missing.join(", ")}`);
  }
  return answer;
}

// What the host takes for an exception: a plan without a command.
function failedPlan(error) {
  const layout = {
    prefix: "",
    checkpointsUri: "",
    logsUri: "",
    configUri: "",
    runConfigUri: "",
    stepPattern: "",
  };
  const extensions = JSON.stringify({ failure: shownException(error) });
  const nothing = { command: [], environment: [], warnings: [], resolvedArgs: "{}" };
  return { ...nothing, layout, extensions };
}

function shownException(error) {
  return `${error}\n${error?.stack ?? ""}`.slice(0, MOST_OF_EXCEPTION);
}

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
