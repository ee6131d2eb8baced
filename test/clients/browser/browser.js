// A real browser: a page with MSAL signs people in at the pages of the product, by
// password and code and by passkey alone; axe looks at every page on the way.
"use strict";
const fs = require("fs");
const http = require("http");
const https = require("https");
const tls = require("tls");
const crypto = require("crypto");
const path = require("path");
const puppeteer = require("puppeteer-core");

const ready = JSON.parse(fs.readFileSync(process.env.CASTELLAN_READY, "utf8").split("\n")[0]);
const modules = process.env.NODE_PATH;
const [address, port] = ready.listen.split(":");
const host = new URL(ready.loginEndpoint).hostname;
const ca = fs.readFileSync(ready.caFile);
const password = "correct horse battery";

// SHOTS=FOLDER keeps a picture of every page.
async function ok(name, check) {
  try {
    const out = await check();
    console.log(`ok browser: ${name}`);
    return out;
  } catch (e) {
    console.log(`FAIL browser: ${name}: ${String((e && e.message) || e).replace(/\s+/g, " ").slice(0, 500)}`);
  }
}

function equal(got, want) {
  if (JSON.stringify(got) !== JSON.stringify(want)) throw new Error(`got ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
}

// call makes a request to the product without a browser.
function call(method, at, headers, body) {
  return new Promise((done, fail) => {
    const req = https.request({ host: address, port, servername: host, ca, method, path: at, headers: { Host: host, ...headers } }, (res) => {
      let text = "";
      res.on("data", (b) => (text += b));
      res.on("end", () => (res.statusCode < 300 ? done(text && JSON.parse(text)) : fail(new Error(`${method} ${at}: ${res.statusCode} ${text.slice(0, 300)}`))));
    });
    req.on("error", fail);
    req.end(body);
  });
}

async function graph(method, at, body) {
  const form = new URLSearchParams({ grant_type: "client_credentials", client_id: ready.admin.clientId, client_secret: ready.admin.clientSecret, scope: ready.graphEndpoint + "/.default" });
  const t = await call("POST", `/${ready.tenantId}/oauth2/v2.0/token`, { "Content-Type": "application/x-www-form-urlencoded" }, form.toString());
  return call(method, "/v1.0/" + at, { Authorization: "Bearer " + t.access_token, "Content-Type": "application/json" }, JSON.stringify(body));
}

const consents = (policies) => ({ defaultUserRolePermissions: { permissionGrantPoliciesAssigned: policies } });

// leaf is the hash of the key by which the product shows itself, so that the
// browser trusts it and nothing else.
function leaf() {
  return new Promise((done, fail) => {
    const s = tls.connect({ host: address, port, servername: host, ca }, () => {
      const key = s.getPeerX509Certificate().publicKey.export({ type: "spki", format: "der" });
      s.end();
      done(crypto.createHash("sha256").update(key).digest("base64"));
    });
    s.on("error", fail);
  });
}

// code is the one-time code for a key as the page shows it.
function code(key) {
  let bits = "";
  for (const c of key.replace(/ /g, "")) bits += "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0");
  const secret = Buffer.from(bits.match(/.{8}/g).map((b) => parseInt(b, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30000)));
  const sum = crypto.createHmac("sha1", secret).update(step).digest();
  return String((sum.readUInt32BE(sum[19] & 15) & 0x7fffffff) % 1e6).padStart(6, "0");
}

const client = `<!DOCTYPE html><html lang="en"><title>client</title><main><h1 id="state">starting</h1></main><script src="/msal.js"></script><script>
(async () => {
  const c = await (await fetch("/config")).json();
  const app = new msal.PublicClientApplication({ auth: { clientId: c.clientId, authority: c.authority, knownAuthorities: [c.host], redirectUri: location.origin + "/" }, cache: { cacheLocation: "sessionStorage" } });
  await app.initialize();
  const show = (x) => (document.getElementById("state").textContent = JSON.stringify(x));
  try {
    const r = await app.handleRedirectPromise();
    if (r) return show({ amr: r.idTokenClaims.amr, name: r.idTokenClaims.preferred_username, token: r.accessToken.length > 100 });
    const q = new URLSearchParams(location.search);
    if (q.has("out")) return app.logoutRedirect({ postLogoutRedirectUri: location.origin + "/out" });
    if (location.pathname === "/out") return show({ out: true });
    const ask = { scopes: [c.scope] };
    if (q.has("mfa")) ask.claims = JSON.stringify({ id_token: { amr: { essential: true, values: ["mfa"] } } });
    if (q.has("prompt")) ask.prompt = q.get("prompt");
    await app.loginRedirect(ask);
  } catch (e) { show({ error: String(e.message || e) }); }
})();</script></html>`;

async function main() {
  const chromium = process.env.CHROMIUM || "/usr/bin/chromium";
  if (!fs.existsSync(chromium)) {
    console.log(`SKIP browser: there is no ${chromium}`);
    return console.log("done browser");
  }
  const config = { authority: `${ready.loginEndpoint}/${ready.tenantId}`, host, scope: ready.armEndpoint + "/user_impersonation" };
  const server = http.createServer((req, res) => {
    if (req.url === "/msal.js") return res.setHeader("Content-Type", "text/javascript"), res.end(fs.readFileSync(path.join(modules, "@azure/msal-browser/lib/msal-browser.min.js")));
    if (req.url === "/config") return res.setHeader("Content-Type", "application/json"), res.end(JSON.stringify(config));
    res.setHeader("Content-Type", "text/html");
    res.end(client);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const page0 = `http://localhost:${server.address().port}`;
  const nick = "browser" + Date.now();
  const upn = `${nick}@${host}`;
  await ok("an application and a person", async () => {
    const app = await graph("POST", "applications", { displayName: "Page", spa: { redirectUris: [page0 + "/", page0 + "/out"] } });
    await graph("POST", "servicePrincipals", { appId: app.appId });
    config.clientId = app.appId;
    await graph("PATCH", "policies/authorizationPolicy", consents(["ManagePermissionGrantsForSelf.microsoft-user-default-legacy"]));
    await graph("POST", "users", { accountEnabled: true, displayName: "Browser", mailNickname: nick, userPrincipalName: upn, passwordProfile: { password, forceChangePasswordNextSignIn: false } });
  });
  const browser = await puppeteer.launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--disable-gpu", "--no-proxy-server", `--host-resolver-rules=MAP ${host}:443 ${address}:${port}`, `--ignore-certificate-errors-spki-list=${await leaf()}`],
  });
  const axe = fs.readFileSync(path.join(modules, "axe-core/axe.min.js"), "utf8");
  const seen = new Set();
  const bad = [];
  const origins = []; // what the browser says the pages' forms come from
  // Each page has one session with the browser: one that ends takes the page's
  // authenticators with it, whoever added them.
  let page, cdp;

  const heading = () => page.$eval("h1", (h) => h.textContent);
  // at waits for a page of the product, and has axe look at it.
  async function at(title) {
    await page.waitForFunction((t) => document.querySelector("h1")?.textContent.startsWith(t), { timeout: 10000 }, title).catch(async () => {
      throw new Error(`waiting for ${title}, the page is ${await heading()}: ${await page.$eval("main", (m) => m.innerText)}`);
    });
    if (seen.has(title)) return;
    seen.add(title);
    const found = await (async () => {
      const { executionContextId: contextId } = await (async () => {
        const { frameTree } = await cdp.send("Page.getFrameTree");
        return cdp.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id, worldName: "axe" });
      })();
      await cdp.send("Runtime.evaluate", { expression: axe, contextId });
      const r = await cdp.send("Runtime.evaluate", { expression: "axe.run().then(r => JSON.stringify(r.violations.map(v => v.id + ' ' + v.nodes[0].html)))", contextId, awaitPromise: true });
      return JSON.parse(r.result.value || `["axe did not run: ${r.exceptionDetails && r.exceptionDetails.text}"]`);
    })();
    for (const f of found) bad.push(`${title}: ${f}`);
    if (process.env.SHOTS) await page.screenshot({ path: path.join(process.env.SHOTS, title.replace(/\W+/g, "-") + ".png") });
  }
  const press = (name) => Promise.all([page.waitForNavigation({ timeout: 8000 }), page.evaluate((n) => [...document.querySelectorAll("button")].find((b) => (b.getAttribute("aria-label") || b.textContent) === n).click(), name)]);
  // click presses what asks for a passkey, and tells what the page says if it goes nowhere.
  const click = (what) => Promise.all([page.waitForNavigation({ timeout: 8000 }), page.click(what)]).catch(async (e) => {
    throw new Error(`${e.message}: ${await page.$eval("main", (m) => m.innerText)}`);
  });
  async function typeIn(fields) {
    for (const [id, v] of Object.entries(fields)) {
      await page.$eval("#" + id, (e) => (e.value = ""));
      await page.type("#" + id, v);
    }
  }
  const state = async () => {
    await page.waitForFunction(() => document.getElementById("state")?.textContent.startsWith("{"), { timeout: 15000 });
    return JSON.parse(await heading());
  };
  async function fresh() {
    const context = await browser.createBrowserContext();
    page = await context.newPage();
    // Browsers make passkeys on pages that have the focus only.
    cdp = await page.createCDPSession();
    const posts = new Set();
    cdp.on("Network.requestWillBeSent", (e) => e.request.method === "POST" && new URL(e.request.url).hostname === host && e.type === "Document" && posts.add(e.requestId));
    cdp.on("Network.requestWillBeSentExtraInfo", (e) => {
      if (posts.delete(e.requestId)) origins.push(Object.entries(e.headers).find(([k]) => k.toLowerCase() === "origin")?.[1]);
    });
    await cdp.send("Network.enable");
    await cdp.send("Emulation.setFocusEmulationEnabled", { enabled: true });
  }

  await fresh();
  await ok("msal: sign-in by password", async () => {
    await page.goto(page0 + "/");
    await at("Sign in");
    await typeIn({ login: upn, passwd: password });
    await press("Sign in");
    await at("Permissions requested");
    await press("Accept for myself");
    equal(await state(), { amr: ["pwd"], name: upn, token: true });
  });
  let key, authenticator;
  await ok("an authenticator app is added at the page of one's own methods", async () => {
    await page.goto(ready.loginEndpoint + "/common/mysecurityinfo");
    await at("Your sign-in methods");
    await press("Add an authenticator app");
    await at("Add an authenticator app");
    key = await page.$eval("code.key", (c) => c.textContent);
    await typeIn({ otc: code(key) });
    await press("Add it");
    await at("Keep your recovery codes");
    equal((await page.$$(".codes li")).length, 10);
    await press("I have kept them");
    await at("Your sign-in methods");
  });
  await ok("a passkey is added", async () => {
    await cdp.send("WebAuthn.enable");
    authenticator = (await cdp.send("WebAuthn.addVirtualAuthenticator", { options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true } })).authenticatorId;
    await press("Add a passkey");
    await at("Add a passkey");
    await click("#start");
    await at("Your sign-in methods");
    if (!(await page.$eval("main", (m) => m.innerText)).includes("Passkey 1")) throw new Error("it is not listed");
  });
  await ok("msal: sign-out leads back", async () => {
    await page.goto(page0 + "/?out");
    await at("Sign out?");
    await press("Sign out");
    equal(await state(), { out: true });
  });
  await ok("msal: sign-in by a passkey alone", async () => {
    await page.goto(page0 + "/");
    await at("Sign in");
    await press("Use a passkey");
    await at("Sign in with a passkey");
    await cdp.send("WebAuthn.setUserVerified", { authenticatorId: authenticator, isUserVerified: false });
    await page.click("#start");
    await page.waitForFunction(() => document.getElementById("said").textContent.startsWith("That did not work, or it was cancelled"), { timeout: 10000 });
    await cdp.send("WebAuthn.setUserVerified", { authenticatorId: authenticator, isUserVerified: true });
    await click("#start");
    equal(await state(), { amr: ["fido", "mfa"], name: upn, token: true });
  });
  await fresh();
  await ok("msal: a step up asks for a code", async () => {
    await page.goto(page0 + "/?mfa");
    await at("Sign in");
    await typeIn({ login: upn, passwd: password });
    await press("Sign in");
    await at("Show that it is you");
    await typeIn({ otc: "000000" });
    await press("Verify");
    if (!(await page.$("[role=alert]"))) throw new Error("a wrong code is not told");
    const used = Math.floor(Date.now() / 30000);
    while (Math.floor(Date.now() / 30000) === used) await new Promise((done) => setTimeout(done, 500));
    await typeIn({ otc: code(key) });
    await press("Verify");
    equal(await state(), { amr: ["pwd", "otp", "mfa"], name: upn, token: true });
  });
  await ok("forms say that they come from the product's own pages", async () => {
    if (origins.length < 10) throw new Error(`only ${origins.length} forms were seen`);
    equal([...new Set(origins)], [new URL(ready.loginEndpoint).origin]);
  });
  await ok(`axe finds nothing on ${seen.size} pages`, async () => equal(bad, []));
  await graph("PATCH", "policies/authorizationPolicy", consents([]));
  await browser.close();
  server.close();
  console.log("done browser");
}

main().catch((e) => {
  console.log(`FAIL browser: ${e.stack}`);
  process.exit(1);
});
