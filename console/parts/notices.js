// What went wrong or well, in a corner of the page, and pages that fail.
import { Component } from "../vendor/preact.mjs";
import { html, useEffect, useState } from "../lib/html.js";
import { visible } from "../lib/format.js";

const listeners = new Set();
const SHOWN = { good: 4000, bad: 10_000 };

export function notify(text, kind = "good") {
  listeners.forEach((listener) => listener({ text, kind, id: Math.random() }));
}

// Calls something that may be refused, and says so if it is.
export async function attempt(action, done) {
  try {
    const result = await action();
    if (done) notify(done);
    return result;
  } catch (error) {
    notify(error.message, "bad");
    return undefined;
  }
}

export function Notices() {
  const [notices, change] = useState([]);
  useEffect(() => {
    const add = (notice) => {
      change((all) => [...all.slice(-3), notice]);
      setTimeout(() => change((all) => all.filter(({ id }) => id !== notice.id)), SHOWN[notice.kind]);
    };
    listeners.add(add);
    return () => listeners.delete(add);
  }, []);
  return html`<div class="notices" role="status" aria-live="polite">
    ${notices.map(({ id, kind, text }) => html`<p key=${id} class=${kind}>${visible(text)}</p>`)}
  </div>`;
}

// A refusal, with what is wrong and what to do.
export function Failure({ error, retry }) {
  return html`<div class="failure" role="alert">
    <p>${visible(error.message)}</p>
    ${error.requestId && html`<p class="muted">Request ${error.requestId}: the service's log says more.</p>`}
    ${retry && html`<button onClick=${retry}>Try again</button>`}
  </div>`;
}

// Shows a page that fails as an error instead of as nothing.
export class Boundary extends Component {
  constructor() {
    super();
    this.state = { error: null };
  }

  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }

  render({ children }, { error }) {
    if (!error) return children;
    const again = () => this.setState({ error: null });
    return html`<div><h1>This page has failed</h1><${Failure} error=${error} retry=${again} /></div>`;
  }
}
