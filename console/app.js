// The console: its frame, its pages by the part of the address after #, and the token.
import { html, render, useEffect, useState } from "./lib/html.js";
import { onUnauthorized, setToken, token } from "./lib/api.js";
import { start, useJobs } from "./lib/jobs.js";
import { Boundary, Notices } from "./parts/notices.js";
import { Runs } from "./pages/runs.js";
import { Run } from "./pages/run.js";
import { NewRun } from "./pages/new.js";
import { Compare } from "./pages/compare.js";
import { Frameworks } from "./pages/frameworks.js";

const PAGES = [
  ["runs", "Runs"],
  ["new", "New run"],
  ["compare", "Compare"],
  ["frameworks", "Frameworks"],
  ["api", "API"],
];

// #/run/default/meta-demo?tab=log becomes { page: "run", path: [...], query }.
function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { page: page || "runs", path: rest, query: new URLSearchParams(query) };
}

function App() {
  const [at, go] = useState(route());
  const [asksToken, askToken] = useState(false);
  useEffect(() => {
    const change = () => {
      go(route());
      document.getElementById("main")?.focus({ preventScroll: true });
      scrollTo(0, 0);
    };
    addEventListener("hashchange", change);
    onUnauthorized(() => askToken(true));
    start();
    return () => removeEventListener("hashchange", change);
  }, []);
  const isHere = (page) => page === at.page || (page === "runs" && at.page === "run");
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to content</a>
    <header class="top">
      <a class="brand" href="#/runs">Trainer</a>
      <nav aria-label="Pages">
        ${PAGES.map(([page, title]) => html`
          <a key=${page} href=${`#/${page}`} aria-current=${isHere(page) ? "page" : undefined}>${title}</a>`)}
      </nav>
      <${Connection} />
      <${Theme} />
      ${token() && html`<button class="quiet" onClick=${forget}>Forget token</button>`}
    </header>
    <main id="main" tabindex="-1">
      ${asksToken
        ? html`<${TokenForm} />`
        : html`<${Boundary} key=${at.page}><${Page} at=${at} /><//>`}
    </main>
    <${Notices} />`;
}

function Page({ at }) {
  const { page, path, query } = at;
  if (page === "runs") return html`<${Runs} />`;
  if (page === "run") {
    const [namespace, name] = path;
    return html`<${Run} key=${path.join("/")} job=${{ namespace, name }} tab=${query.get("tab") || "overview"} />`;
  }
  if (page === "new") return html`<${NewRun} key=${query.toString()} clone=${query.get("clone")} />`;
  if (page === "compare") return html`<${Compare} runs=${query.getAll("run")} />`;
  if (page === "frameworks") return html`<${Frameworks} name=${path[0]} />`;
  if (page === "api") {
    location.replace("console/reference.html");
    return null;
  }
  return html`<div class="empty"><h1>Page not found</h1><p><a href="#/runs">See all runs</a></p></div>`;
}

function Connection() {
  const { connection } = useJobs();
  const words = { live: "Live", connecting: "Connecting…", lost: "Reconnecting…" };
  return html`<span class=${`connection ${connection}`} role="status">${words[connection] || ""}</span>`;
}

function Theme() {
  const [theme, choose] = useState(localStorage.getItem("theme") || "system");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
  }, [theme]);
  return html`<select class="quiet" aria-label="Colours" value=${theme} onChange=${(event) => choose(event.target.value)}>
    ${["system", "light", "dark"].map((of) => html`<option key=${of} value=${of}>${of}</option>`)}
  </select>`;
}

function TokenForm() {
  const enter = (event) => {
    event.preventDefault();
    setToken(event.target.elements.token.value.trim());
    location.reload();
  };
  return html`<form class="card narrow" onSubmit=${enter}>
    <h1>This service asks for a token</h1>
    ${token() && html`<p class="bad" role="alert">The service refused the token. Check it and enter it again.</p>`}
    <label for="token">Token</label>
    <input id="token" name="token" type="password" required autocomplete="off" autofocus />
    <p class="muted">It is the value of TRAINER_API_TOKEN; the operator of the service has it. This tab
      keeps it until you close the tab.</p>
    <button class="primary">Continue</button>
  </form>`;
}

function forget() {
  setToken(null);
  location.reload();
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

document.documentElement.dataset.theme = localStorage.getItem("theme") || "system";
const place = document.getElementById("app");
place.replaceChildren();
render(html`<${App} />`, place);
