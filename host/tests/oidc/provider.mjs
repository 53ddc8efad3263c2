// A real OpenID Connect provider on loopback for the tests: `oidc-provider`, with routes of its own under
// /test. `node provider.mjs FOLDER`, where FOLDER has node_modules. Prints its issuer.
//
//   /test/token?alg=ES256&client=trainer&sub=alice   an ID token by the authorization code flow
//   /test/forged?kind=none                           a token that no service may accept
//   /test/rotate                                     replaces all keys

import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const modules = pathToFileURL(`${resolve(process.argv[2])}/node_modules/`);
const { default: Provider } = await import(new URL("oidc-provider/lib/index.js", modules));
const jose = await import(new URL("jose/dist/node/esm/index.js", modules));

const REDIRECT = "https://client.example/callback";
const CLIENTS = ["trainer", "another-service"];
const SECRET = "secret-of-the-clients";
const HOUR = 3600;

const server = http.createServer((request, response) => answer(request, response));
server.listen(0, "127.0.0.1");
await once(server, "listening");
const issuer = `http://127.0.0.1:${server.address().port}`;

let keys = await newKeys();
let provider = newProvider("RS256");
console.log(issuer);

async function newKeys() {
  const pairs = await Promise.all(
    ["RS256", "ES256"].map((alg) => jose.generateKeyPair(alg, { extractable: true })),
  );
  const id = randomBytes(4).toString("hex");
  const kinds = ["rsa", "ec"];
  const jwks = await Promise.all(
    pairs.map(async ({ privateKey }, index) => ({
      ...(await jose.exportJWK(privateKey)),
      kid: `${kinds[index]}-${id}`,
      use: "sig",
    })),
  );
  return { rsa: { ...pairs[0], kid: jwks[0].kid }, ec: { ...pairs[1], kid: jwks[1].kid }, jwks };
}

function newProvider(algorithm) {
  // Without its advice about production, which is printed each time.
  const { info, warn } = console;
  Object.assign(console, { info: () => {}, warn: () => {} });
  const created = new Provider(issuer, {
    clients: CLIENTS.map((client_id) => ({
      client_id,
      client_secret: SECRET,
      redirect_uris: [REDIRECT],
      id_token_signed_response_alg: algorithm,
    })),
    jwks: { keys: keys.jwks },
    enabledJWA: { idTokenSigningAlgValues: ["RS256", "PS256", "ES256"] },
    claims: { openid: ["sub", "email", "email_verified", "groups"] },
    conformIdTokenClaims: false,
    cookies: { keys: ["for tests"] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_context, interaction) => `/test/interaction/${interaction.uid}` },
    ttl: { IdToken: HOUR, AccessToken: HOUR, Grant: HOUR, Interaction: HOUR, Session: HOUR },
    findAccount: (_context, sub) => ({
      accountId: sub,
      claims: () => ({ sub, email: `${sub}@example.org`, email_verified: false, groups: ["ml"] }),
    }),
  });
  Object.assign(console, { info, warn });
  created.on("server_error", (_context, error) => console.error(error));
  return created;
}

async function answer(request, response) {
  const url = new URL(request.url, issuer);
  const send = (text) => response.end(text);
  try {
    switch (url.pathname) {
      case "/test/token":
        return send(await token(url.searchParams));
      case "/test/forged":
        return send(await forged(url.searchParams.get("kind")));
      case "/test/rotate":
        keys = await newKeys();
        provider = newProvider("RS256");
        return send("");
      default:
        if (url.pathname.startsWith("/test/interaction/")) return await interact(request, response);
        return provider.callback()(request, response);
    }
  } catch (error) {
    response.statusCode = 500;
    send(String(error.stack));
  }
}

/** Signs the user in, and agrees to everything that the client asks for. */
async function interact(request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (prompt.name === "login") {
    const result = { login: { accountId: params.login_hint } };
    return provider.interactionFinished(request, response, result);
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = { consent: { grantId: await grant.save() } };
  return provider.interactionFinished(request, response, result);
}

/** What a browser and a client do: the authorization code flow with PKCE. */
async function token(query) {
  const client = query.get("client") ?? "trainer";
  provider = newProvider(query.get("alg") ?? "RS256");
  const verifier = randomBytes(32).toString("base64url");
  const challenge = createHash("sha256").update(verifier).digest("base64url");
  const parameters = new URLSearchParams({
    client_id: client,
    response_type: "code",
    redirect_uri: REDIRECT,
    scope: "openid",
    code_challenge: challenge,
    code_challenge_method: "S256",
    login_hint: query.get("sub") ?? "alice",
  });
  const code = await authorized(new URL(`${issuer}/auth?${parameters}`));
  const answer = await fetch(`${issuer}/token`, {
    method: "POST",
    headers: { authorization: `Basic ${btoa(`${client}:${SECRET}`)}` },
    body: new URLSearchParams({
      grant_type: "authorization_code",
      code,
      redirect_uri: REDIRECT,
      code_verifier: verifier,
    }),
  });
  const { id_token, ...rest } = await answer.json();
  if (!id_token) throw new Error(JSON.stringify(rest));
  return id_token;
}

/** Follows the redirects to the client, with cookies, and returns the code that the client gets. */
async function authorized(url) {
  const cookies = new Map();
  for (let steps = 0; steps < 10; steps += 1) {
    const cookie = [...cookies].map((pair) => pair.join("=")).join("; ");
    const answer = await fetch(url, { headers: { cookie }, redirect: "manual" });
    for (const set of answer.headers.getSetCookie()) {
      const [name, ...value] = set.split(";")[0].split("=");
      cookies.set(name, value.join("="));
    }
    const location = answer.headers.get("location");
    if (!location) throw new Error(`${answer.status} ${await answer.text()}`);
    url = new URL(location, url);
    if (url.href.startsWith(REDIRECT)) return url.searchParams.get("code");
  }
  throw new Error("too many redirects");
}

/** Tokens of an attacker, and tokens of the provider that are for something else. */
async function forged(kind) {
  const now = Math.floor(Date.now() / 1000);
  const good = { iss: issuer, aud: "trainer", sub: "alice", groups: ["ml"], iat: now, exp: now + HOUR };
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString("base64url");
  const unsigned = (header, claims = good) => `${encode(header)}.${encode(claims)}`;
  const sign = (claims, header = {}, key = keys.rsa.privateKey) =>
    new jose.SignJWT(claims)
      .setProtectedHeader({ alg: "RS256", kid: keys.rsa.kid, ...header })
      .sign(key);
  const hmac = (secret) => sign(good, { alg: "HS256" }, secret);
  const attacker = await jose.generateKeyPair("RS256", { extractable: true });
  const without = (...names) =>
    Object.fromEntries(Object.entries(good).filter(([name]) => !names.includes(name)));
  const kinds = {
    // Shows that the others fail for what is wrong with them.
    "nothing-wrong": () => sign(good),
    none: () => `${unsigned({ alg: "none" })}.`,
    "none-with-key": () => `${unsigned({ alg: "none", kid: keys.rsa.kid })}.`,
    "none-in-capitals": () => `${unsigned({ alg: "NONE", kid: keys.rsa.kid })}.`,
    "empty-signature": () => `${unsigned({ alg: "RS256", kid: keys.rsa.kid })}.`,
    "zero-signature": () =>
      `${unsigned({ alg: "ES256", kid: keys.ec.kid })}.${Buffer.alloc(64).toString("base64url")}`,
    "hmac-with-pem": async () => hmac(Buffer.from(await jose.exportSPKI(keys.rsa.publicKey))),
    "hmac-with-modulus": async () => {
      const { n } = await jose.exportJWK(keys.rsa.publicKey);
      return hmac(Buffer.from(n, "base64url"));
    },
    "key-of-another-type": () => sign(good, { alg: "ES256", kid: keys.rsa.kid }, keys.ec.privateKey),
    "key-of-attacker": () => sign(good, {}, attacker.privateKey),
    "unknown-key": () => sign(good, { kid: "unknown" }, attacker.privateKey),
    "key-in-header": async () => {
      const jwk = await jose.exportJWK(attacker.publicKey);
      return sign(good, { jwk }, attacker.privateKey);
    },
    "address-of-keys-in-header": () =>
      sign(good, { jku: `${issuer}/test/forged?kind=keys` }, attacker.privateKey),
    "changed-claims": async () => {
      const [header, , signature] = (await sign(good)).split(".");
      return `${header}.${encode({ ...good, sub: "adam" })}.${signature}`;
    },
    "four-parts": async () => `${await sign(good)}.x`,
    "unknown-extension": () =>
      new jose.SignJWT(good)
        .setProtectedHeader({ alg: "RS256", kid: keys.rsa.kid, crit: ["x"], x: 1 })
        .sign(keys.rsa.privateKey, { crit: { x: true } }),
    expired: () => sign({ ...good, exp: now - 120 }),
    "without-expiry": () => sign(without("exp")),
    "not-yet": () => sign({ ...good, nbf: now + HOUR }),
    "another-issuer": () => sign({ ...good, iss: "https://attacker.example" }),
    "issuer-with-slash": () => sign({ ...good, iss: `${issuer}/` }),
    "without-issuer": () => sign(without("iss")),
    "another-audience": () => sign({ ...good, aud: ["another-service"] }),
    "without-audience": () => sign(without("aud")),
    "without-user": () => sign(without("sub")),
    "user-as-number": () => sign({ ...good, sub: 7 }),
    "logout-token": () =>
      sign({ ...good, events: { "http://schemas.openid.net/event/backchannel-logout": {} } }),
    "typed-logout-token": () => sign(good, { typ: "logout+jwt" }),
    "security-event": () => sign(good, { typ: "secevent+jwt" }),
  };
  if (kind === "list") return JSON.stringify(Object.keys(kinds));
  return kinds[kind]();
}
