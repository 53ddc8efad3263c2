// Requests: that of a job, and as text to take away.
import { json, jobPath } from "./api.js";
import { write } from "./yaml.js";

// The request that a job was made from.
export function requestOfJob(job, signal) {
  return json(jobPath(job, "/request"), { signal });
}

// A free name after that of a run: run-1 becomes run-2, demo becomes demo-2.
export function nextRunId(runId) {
  const [, stem, number] = /^(.*?)(\d{1,6})$/.exec(runId) || [];
  return number ? `${stem}${String(Number(number) + 1).padStart(number.length, "0")}` : `${runId}-2`;
}

export function withoutEmpty(request) {
  const isEmpty = (of) =>
    of === undefined || of === null || of === "" ||
    (typeof of === "object" && !Array.isArray(of) && Object.keys(of).length === 0);
  return Object.fromEntries(Object.entries(request).filter(([, of]) => !isEmpty(of)));
}

export function jobFile(request) {
  return write(request);
}

export function curl(request) {
  const body = JSON.stringify(request, null, 2).replaceAll("'", "'\\''");
  const token = sessionStorage.length > 0 ? ` \\\n  -H "X-TRAINER-TOKEN: $TRAINER_API_TOKEN"` : "";
  return `curl ${new URL("train", document.baseURI)} \\\n  -H 'Content-Type: application/json'${token} \\\n  -d '${body}'`;
}
