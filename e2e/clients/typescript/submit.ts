// Submits the request of the README, which the test writes to request.ts, and reads the job back.

import createClient from "openapi-fetch";

import { address, request } from "./request.js";
import type { components, paths } from "./schema.js";

type Job = components["schemas"]["JobSummary"];

const client = createClient<paths>({ baseUrl: address });

const created = await client.POST("/train", { body: { ...request, run_id: "typescript" } });
if (created.error) {
  throw new Error(created.error.detail);
}
const job: Job = created.data;

const details = await client.GET("/train/{job_name}", {
  params: { path: { job_name: job.name }, query: { view: "full" } },
});
if (details.error) {
  throw new Error(details.error.detail);
}
const full = details.data;
if (typeof full === "string" || !("replicas" in full)) {
  throw new Error("the response has no details");
}
console.log(job.name, Object.keys(full.replicas).length);
