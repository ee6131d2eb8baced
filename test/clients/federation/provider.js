// An OpenID provider that others wrote (npm oidc-provider), with its own sign-in pages: whatever name one
// types there, one is. It prints its issuer, and begins once it is told its clients, a line of JSON.
//
//   provider.js MODULES CERTIFICATE KEY
"use strict";
const fs = require("fs");
const https = require("https");
const path = require("path");
const readline = require("readline");
const [modules, cert, key] = process.argv.slice(2);

// Groups of people by name; everybody is of staff.
const groups = { ann: ["staff", "engineers"] };

const account = (ctx, id) => ({
  accountId: id,
  claims: () => ({ sub: id, preferred_username: id + "@oidc.example", name: id + " of Elsewhere", email: id + "@oidc.example", groups: groups[id] || ["staff"] }),
});

async function begin(server, issuer, clients) {
  const { Provider } = await import(path.join(modules, "oidc-provider", "lib", "index.js"));
  const provider = new Provider(issuer, {
    clients,
    findAccount: account,
    claims: { openid: ["sub"], profile: ["preferred_username", "name", "groups"], email: ["email"] },
    enabledJWA: { idTokenSigningAlgValues: ["RS256", "HS256"] },
    cookies: { keys: [require("crypto").randomBytes(32).toString("hex")] },
    pkce: { required: () => true },
  });
  server.on("request", provider.callback());
}

const server = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) });
server.listen(0, "127.0.0.1", () => {
  const issuer = "https://127.0.0.1:" + server.address().port;
  console.log(issuer);
  readline.createInterface({ input: process.stdin }).once("line", async (line) => {
    await begin(server, issuer, JSON.parse(line));
    console.log("ready");
  });
});
