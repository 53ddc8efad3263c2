// The OpenAPI document in Swagger UI, which can send requests.
import { token } from "./lib/api.js";

const LONGEST = 5000;
const MOST_CHARACTERS = 200_000;

// Texts of plugins are in the document. The policy of this page forbids the markup that Swagger UI would make of
// them, so they are shown as they are.
const PlainText = ({ React }) => ({
  wrapComponents: {
    Markdown: () => ({ source }) => React.createElement("div", { className: "markdown" }, source),
  },
});

// The beginning of a response: some streams do not end.
async function beginning(url, options) {
  const response = await fetch(url, options);
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  const timer = setTimeout(() => reader?.cancel(), LONGEST);
  let text = "";
  while (reader && text.length < MOST_CHARACTERS) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
  }
  clearTimeout(timer);
  reader?.cancel();
  const { status, statusText, headers } = response;
  const shown = new Response([204, 304].includes(status) ? null : text, { status, statusText, headers });
  return Object.defineProperty(shown, "url", { value: response.url });
}

function withToken(request) {
  if (token()) request.headers["X-TRAINER-TOKEN"] = token();
  request.userFetch = beginning;
  return request;
}

const theme = localStorage.getItem("theme") || "system";
const isDark = theme === "dark" || (theme === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
document.documentElement.classList.toggle("dark-mode", isDark);

const root = new URL("..", location.href);
const response = await fetch(new URL("openapi.json", root));
const spec = { ...await response.json(), servers: [{ url: root.href.replace(/\/$/, "") }] };
const domNode = document.getElementById("reference");
domNode.replaceChildren();
window.SwaggerUIBundle({
  spec, domNode, deepLinking: true, tryItOutEnabled: true, validatorUrl: null,
  plugins: [PlainText], requestInterceptor: withToken,
});
