// The Azure SDK for JavaScript: sign-in, a workspace, a cluster, a job; and what must be refused.
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const { ClientAssertionCredential, ClientSecretCredential, ClientCertificateCredential, OnBehalfOfCredential, WorkloadIdentityCredential } = require("@azure/identity");
const { CertificateClient } = require("@azure/keyvault-certificates");
const { CryptographyClient, KeyClient } = require("@azure/keyvault-keys");
const { BlobServiceClient } = require("@azure/storage-blob");
const { AccountSASPermissions, DataLakeServiceClient, StorageSharedKeyCredential } = require("@azure/storage-file-datalake");
const files = require("@azure/storage-file-share");
const { AzureMachineLearningWorkspaces } = require("@azure/arm-machinelearning");
const { Client, PageIterator } = require("@microsoft/microsoft-graph-client");
const management = require("./management.js");
const { EnvHttpProxyAgent, setGlobalDispatcher } = require("undici");

setGlobalDispatcher(new EnvHttpProxyAgent()); // Node's own fetch minds HTTPS_PROXY only from version 24 on

const world = JSON.parse(fs.readFileSync(process.env.CASTELLAN_WORLD));
const group = "clients";
const scope = world.armEndpoint + "/.default";
const options = { authorityHost: world.loginEndpoint, disableInstanceDiscovery: true };
let failed = 0;

const line = (e) => String((e && e.message) || e).replace(/\s+/g, " ").slice(0, 600);

// ok goes on after a failed check; it hands back what the check came to.
async function ok(name, check) {
  try {
    const result = await check();
    console.log(`ok node: ${name}`);
    return result;
  } catch (e) {
    failed++;
    console.log(`FAIL node: ${name}: ${line(e)}`);
  }
}

// refused holds if the check fails and the error names one of wanted.
async function refused(name, check, ...wanted) {
  await ok("refused: " + name, async () => {
    let said;
    try {
      await check();
    } catch (e) {
      said = `${e.statusCode} ${e.code} ${e.message}`;
    }
    if (said === undefined) throw new Error("it was allowed");
    if (!wanted.some((w) => said.includes(w))) throw new Error(`wanted one of ${wanted} in: ${said}`);
  });
}

function equal(got, want) {
  if (got !== want) throw new Error(`got ${got}, want ${want}`);
}

const credential = (who, secret) => new ClientSecretCredential(world.tenantId, world[who].clientId, secret || world[who].clientSecret, options);
const client = (who) =>
  new AzureMachineLearningWorkspaces(credential(who), world.subscriptionId, { endpoint: world.armEndpoint, credentialScopes: scope, retryOptions: { maxRetries: 1 } });
const fast = { updateIntervalInMs: 500 };
const all = async (pages) => {
  const out = [];
  for await (const item of pages) out.push(item);
  return out;
};
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function until(ml, name, want) {
  for (let left = 120; ; left--) {
    const { properties } = await ml.jobs.get(group, "by-node", name);
    if (properties.status === want) return;
    if (["Completed", "Failed", "Canceled"].includes(properties.status) || left === 0) throw new Error(`it is ${properties.status}, want ${want}`);
    await sleep(500);
  }
}

async function main() {
  await ok("sign-in by secret", () => credential("admin").getToken(scope));
  await ok("sign-in by certificate", () => new ClientCertificateCredential(world.tenantId, world.robot.clientId, { certificatePath: world.robot.certificate }, options).getToken(scope));
  await refused("a wrong secret", () => credential("admin", "wrong".repeat(8)).getToken(scope), "AADSTS7000215", "invalid_client");

  await assertions();
  const ml = client("admin");
  const location = world.location || "local";
  await ok("workspace create", async () => {
    const w = await ml.workspaces.beginCreateOrUpdateAndWait(group, "by-node", { location, identity: { type: "SystemAssigned" }, storageAccount: world.storage, keyVault: world.vault, friendlyName: "Node lab" }, fast);
    equal(w.friendlyName, "Node lab");
    if (!w.identity.principalId) throw new Error("it has no identity of its own");
  });
  await ok("workspace get", async () => equal((await ml.workspaces.get(group, "by-node")).name, "by-node"));
  await ok("workspace update", async () => equal((await ml.workspaces.beginUpdateAndWait(group, "by-node", { tags: { a: "b" } }, fast)).tags.a, "b"));
  await ok("workspace list", async () => equal((await all(ml.workspaces.listByResourceGroup(group))).filter((w) => w.name === "by-node").length, 1));
  await ok("compute create", () =>
    ml.computeOperations.beginCreateOrUpdateAndWait(group, "by-node", "cpu", { location, properties: { computeType: "AmlCompute", properties: { vmSize: "Standard_DS1_v2", scaleSettings: { minNodeCount: 0, maxNodeCount: 1, nodeIdleTimeBeforeScaleDown: "PT120S" } } } }, fast));
  await ok("compute get", async () => equal((await ml.computeOperations.get(group, "by-node", "cpu")).properties.provisioningState, "Succeeded"));
  await ok("environment create", () => ml.environmentVersions.createOrUpdate(group, "by-node", "host", "1", { properties: { image: "castellan.local/host:1" } }));

  const at = world.group + "/providers/Microsoft.MachineLearningServices/workspaces/by-node";
  const job = (command) => ({ properties: { jobType: "Command", command, environmentId: at + "/environments/host/versions/1", computeId: at + "/computes/cpu", experimentName: "by-node" } });
  await ok("job create", () => ml.jobs.createOrUpdate(group, "by-node", "quick", job("echo done")));
  await ok("job get until it is Completed", () => until(ml, "quick", "Completed"));
  await ok("a slow job", () => ml.jobs.createOrUpdate(group, "by-node", "slow", job("sleep 300")));
  await ok("job cancel", () => ml.jobs.beginCancelAndWait(group, "by-node", "slow", fast));
  await ok("it becomes Canceled", () => until(ml, "slow", "Canceled"));
  await ok("job list", async () => equal((await all(ml.jobs.list(group, "by-node"))).length, 2));
  await ok("datastore get", async () => equal((await ml.datastores.get(group, "by-node", "workspaceblobstore")).properties.datastoreType, "AzureBlob"));

  // An application that is disabled meanwhile: the SDK answers the challenge by itself, and there is no other token.
  const robot = client("robot");
  const enable = async (accountEnabled) => {
    const { token } = await credential("admin").getToken(world.graphEndpoint + "/.default");
    const said = await fetch(`${world.graphEndpoint}/v1.0/servicePrincipals/${world.robot.objectId}`, { method: "PATCH", headers: { Authorization: "Bearer " + token, "Content-Type": "application/json" }, body: JSON.stringify({ accountEnabled }) });
    equal(said.status, 204);
  };
  await ok("a robot's workspace get", () => robot.workspaces.get(group, "lab"));
  await ok("the robot disabled", () => enable(false));
  await refused("a challenged robot's workspace get", () => robot.workspaces.get(group, "lab"), "AADSTS7000112");
  await ok("the robot enabled again", () => enable(true));
  await ok("a new robot's workspace get", () => client("robot").workspaces.get(group, "lab"));

  const reader = client("reader");
  const stranger = client("stranger");
  await ok("a reader reads", () => reader.workspaces.get(group, "by-node"));
  await refused("a reader's job", () => reader.jobs.createOrUpdate(group, "by-node", "mine", job("echo mine")), "AuthorizationFailed");
  await refused("a reader's compute", () => reader.computeOperations.beginDeleteAndWait(group, "by-node", "cpu", "Delete", fast), "AuthorizationFailed");
  await refused("a reader's delete", () => reader.workspaces.beginDeleteAndWait(group, "by-node", fast), "AuthorizationFailed");
  await refused("a stranger's get", () => stranger.workspaces.get(group, "by-node"), "AuthorizationFailed", "ResourceNotFound", "ResourceGroupNotFound");
  await refused("a stranger's job list", () => all(stranger.jobs.list(group, "by-node")), "AuthorizationFailed", "ResourceNotFound", "ResourceGroupNotFound");

  await ok("workspace delete", () => ml.workspaces.beginDeleteAndWait(group, "by-node", fast));
  await refused("get of the deleted workspace", () => ml.workspaces.get(group, "by-node"), "ResourceNotFound");
  await blobs();
  await lake();
  await shares();
  await directory();
  await management({ ok, refused, equal, all, credential, scope, world });
  await keys();
  console.log("done node");
  process.exitCode = failed ? 1 : 0;
}

// assertions signs in by tokens of others: a cluster's, which an application trusts, and a person's, on whose behalf one goes on.
async function assertions() {
  const { federated, behalf, reader, robot, tenantId } = world;
  const read = (who) => fs.readFileSync(who.assertion, "utf8");
  const asserted = (who) => new ClientAssertionCredential(tenantId, who.clientId, async () => read(federated), options);
  const workload = (who, file) => new WorkloadIdentityCredential({ ...options, tenantId, clientId: who.clientId, tokenFilePath: file.assertion });
  const goesOn = (who, token) => new OnBehalfOfCredential({ ...options, tenantId, clientId: who.clientId, clientSecret: who.clientSecret, userAssertionToken: read(token) });
  const is = async (c, object) => equal(JSON.parse(Buffer.from((await c.getToken(scope)).token.split(".")[1], "base64url")).oid, object);
  await ok("client assertion", () => is(asserted(federated), federated.objectId));
  await ok("workload identity", () => is(workload(federated, federated), federated.objectId));
  await ok("on behalf of", () => is(goesOn(behalf, behalf), behalf.person));
  await refused("a cluster's token at an application that does not trust it", () => is(asserted(reader)), "AADSTS7002");
  await refused("a cluster's token file at an application that does not trust it", () => is(workload(reader, federated)), "AADSTS7002");
  await refused("client assertion with a person's token", () => is(workload(federated, behalf)), "AADSTS7002");
  await refused("on behalf of, with a token for somebody else", () => is(goesOn(robot, behalf)), "AADSTS500131", "AADSTS50013");
  await refused("on behalf of, with a cluster's token", () => is(goesOn(behalf, federated)), "AADSTS50013");
}

// keys is a vault's keys, held against Node's own cryptography.
async function keys() {
  const url = `https://clients-kv.${world.suffixes.vault}`;
  const client = (who) => new KeyClient(url, credential(who), { retryOptions: { maxRetries: 1 } });
  const c = client("admin");
  const words = Buffer.from("words of node");
  const sha256 = crypto.createHash("sha256").update(words).digest();
  const rsa = await ok("key create", () => c.createRsaKey("by-node", { keySize: 2048, tags: { a: "b" } }));
  const by = new CryptographyClient(rsa, credential("admin"));
  const blind = new CryptographyClient(rsa.id, credential("robot"));
  const jwk = { kty: "RSA", n: Buffer.from(rsa.key.n).toString("base64url"), e: Buffer.from(rsa.key.e).toString("base64url") };
  const pub = crypto.createPublicKey({ key: jwk, format: "jwk" });
  const { result: signed } = (await ok("sign", () => by.sign("PS256", sha256))) || {};
  await ok("the signature verifies by Node", async () => equal(crypto.verify("sha256", words, { key: pub, padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }, signed), true));
  await ok("the signature verifies by the client", async () => equal((await by.verify("PS256", sha256, signed)).result, true));
  await ok("what Node encrypted the vault decrypts", async () => {
    const sealed = crypto.publicEncrypt({ key: pub, padding: crypto.constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha256" }, words);
    equal(Buffer.from((await by.decrypt({ algorithm: "RSA-OAEP-256", ciphertext: sealed })).result).toString(), words.toString());
  });
  await ok("wrap and unwrap", async () => equal(Buffer.from((await by.unwrapKey("RSA-OAEP-256", (await by.wrapKey("RSA-OAEP-256", words)).result)).result).toString(), words.toString()));
  await ok("rotation policy", async () => {
    await c.updateKeyRotationPolicy("by-node", { expiresIn: "P90D", lifetimeActions: [{ action: "Rotate", timeBeforeExpiry: "P30D" }] });
    equal((await c.getKeyRotationPolicy("by-node")).lifetimeActions[0].timeBeforeExpiry, "P30D");
  });
  await ok("rotate", async () => equal((await c.rotateKey("by-node")).properties.version === rsa.properties.version, false));
  await ok("versions", async () => equal((await all(c.listPropertiesOfKeyVersions("by-node"))).length, 2));
  await ok("delete and recover", async () => {
    await (await c.beginDeleteKey("by-node", { intervalInMs: 200 })).pollUntilDone();
    await (await c.beginRecoverDeletedKey("by-node", { intervalInMs: 200 })).pollUntilDone();
    equal((await c.getKey("by-node")).name, "by-node");
  });
  await certificates(url);
  await refused("a reader's key", () => client("reader").createKey("mine", "RSA"), "403");
  await refused("a robot's signature", () => blind.sign("PS256", sha256), "403");
  await refused("a stranger's keys", () => all(client("stranger").listPropertiesOfKeys()), "403");
}

// certificates is a vault's certificates.
async function certificates(url) {
  const c = new CertificateClient(url, credential("admin"), { retryOptions: { maxRetries: 1 } });
  await ok("certificate create", async () => {
    const poller = await c.beginCreateCertificate("node-cert", { issuerName: "Self", subject: "CN=node.example", keyType: "EC", keyCurveName: "P-256" }, { intervalInMs: 200 });
    const made = await poller.pollUntilDone();
    equal(new crypto.X509Certificate(Buffer.from(made.cer)).subject, "CN=node.example");
  });
  await ok("certificate list", async () => equal((await all(c.listPropertiesOfCertificates())).filter((p) => p.name === "node-cert").length, 1));
  await ok("certificate delete and recover", async () => {
    await (await c.beginDeleteCertificate("node-cert", { intervalInMs: 200 })).pollUntilDone();
    equal((await (await c.beginRecoverDeletedCertificate("node-cert", { intervalInMs: 200 })).pollUntilDone()).name, "node-cert");
  });
  await refused("a reader's certificate", () => new CertificateClient(url, credential("reader")).getCertificate("node-cert"), "403");
}

// shares are file shares, by the account's key, and as a stranger.
async function shares() {
  const { token } = await credential("admin").getToken(scope);
  const account = `${world.armEndpoint}/subscriptions/${world.subscriptionId}/resourceGroups/${group}/providers/Microsoft.Storage/storageAccounts/clientsacct`;
  const keys = await (await fetch(`${account}/listKeys?api-version=2024-01-01`, { method: "POST", headers: { authorization: `Bearer ${token}` } })).json();
  const url = `https://clientsacct.file.${world.suffixes.storage}`;
  const once = { retryOptions: { maxTries: 1 } };
  const share = new files.ShareServiceClient(url, new files.StorageSharedKeyCredential("clientsacct", keys.keys[0].value), once).getShareClient("by-node");
  await ok("share: create", () => share.create({ quota: 3 }));
  const folder = share.getDirectoryClient("Folder");
  await ok("share: directory", () => folder.create());
  const file = folder.getFileClient("big");
  await ok("share: upload in parallel ranges", () => file.uploadData(Buffer.alloc(3 << 20, 7), { rangeSize: 1 << 20, concurrency: 3 }));
  await ok("share: download of a range", async () => equal((await file.downloadToBuffer(2 << 20, 3)).toString("hex"), "070707"));
  await ok("share: list", async () => equal((await all(folder.listFilesAndDirectories())).map((e) => e.kind + " " + e.name).join(), "file big"));
  await ok("share: rename", async () => equal((await file.rename("Folder/b2")).destinationFileClient.name, "b2"));
  await refused("share: a full directory is deleted", () => folder.delete(), "DirectoryNotEmpty");
  const theirs = new files.ShareServiceClient(url, credential("stranger"), { ...once, fileRequestIntent: "backup" }).getShareClient("by-node");
  await refused("share: a stranger's file", () => theirs.getDirectoryClient("Folder").getFileClient("b2").getProperties(), "403");
  await ok("share: delete", () => share.delete());
}

// lake is a hierarchical namespace by its own client, which asks the Data Lake host for
// what blobs do: it knows Azure's own suffixes alone.
async function lake() {
  const id = `/subscriptions/${world.subscriptionId}/resourceGroups/${group}/providers/Microsoft.Storage/storageAccounts/nodelake`;
  const { token } = await credential("admin").getToken(scope);
  const arm = async (method, path, body) => {
    const r = await fetch(`${world.armEndpoint}${path}?api-version=2024-01-01`, { method, headers: { authorization: `Bearer ${token}`, "content-type": "application/json" }, body: body && JSON.stringify(body) });
    if (!r.ok) throw new Error(`${method} ${path}: ${r.status} ${await r.text()}`);
    return r.json();
  };
  await ok("an account with a hierarchical namespace", () => arm("PUT", id, { location: world.location || "local", kind: "StorageV2", sku: { name: "Standard_LRS" }, properties: { isHnsEnabled: true } }));
  const key = (await arm("POST", id + "/listKeys")).keys[0].value;
  const url = `https://nodelake.${world.suffixes.dfs}`;
  const service = new DataLakeServiceClient(url, new StorageSharedKeyCredential("nodelake", key), { retryOptions: { maxTries: 1 } });
  const theirs = new DataLakeServiceClient(url, credential("stranger"), { retryOptions: { maxTries: 1 } });
  const fs = service.getFileSystemClient("data");
  await ok("lake: file system create", () => fs.create({ metadata: { by: "node" } }));
  await ok("lake: createIfNotExists", async () => equal((await fs.createIfNotExists()).succeeded, false));
  await ok("lake: its properties", async () => equal((await fs.getProperties()).metadata.by, "node"));
  await ok("lake: file systems", async () => equal((await all(service.listFileSystems())).map((f) => f.name).join(), "data"));
  const dir = fs.getDirectoryClient("raw");
  await ok("lake: directory", () => dir.create());
  const file = dir.getFileClient("day.csv");
  await ok("lake: upload", () => file.upload(Buffer.from("hello lake")));
  await ok("lake: read", async () => equal((await file.readToBuffer()).toString(), "hello lake"));
  await ok("lake: set metadata", () => file.setMetadata({ kind: "day" }));
  await ok("lake: set headers", () => file.setHttpHeaders({ contentType: "text/csv" }));
  await ok("lake: properties", async () => {
    const p = await file.getProperties();
    equal(`${p.contentType} ${p.metadata.kind}`, "text/csv day");
  });
  await ok("lake: exists", async () => equal(`${await file.exists()} ${await dir.getFileClient("none").exists()}`, "true false"));
  const lease = file.getDataLakeLeaseClient();
  await ok("lake: lease", () => lease.acquireLease(15));
  await refused("lake: metadata without the lease", () => file.setMetadata({ kind: "night" }), "LeaseIdMissing");
  await ok("lake: release", () => lease.releaseLease());
  await ok("lake: access control", async () => equal((await file.getAccessControl()).permissions.owner.read, true));
  await ok("lake: move", () => file.move("raw/moved.csv"));
  await ok("lake: paths", async () => equal((await all(fs.listPaths({ recursive: true }))).map((p) => p.name).join(), "raw,raw/moved.csv"));
  const signed = new DataLakeServiceClient(`${url}?` + service.generateAccountSasUrl(undefined, AccountSASPermissions.parse("rl"), "sco").split("?")[1]);
  await ok("lake: by a signature", async () => equal((await all(signed.listFileSystems())).length, 1));
  await refused("lake: a stranger's file system", () => theirs.getFileSystemClient("theirs").create(), "AuthorizationPermissionMismatch");
  await refused("lake: a stranger's metadata", () => theirs.getFileSystemClient("data").getFileClient("raw/moved.csv").setMetadata({ kind: "theirs" }), "AuthorizationPermissionMismatch");
  await arm("PUT", id + "/blobServices/default", { properties: { deleteRetentionPolicy: { enabled: true, days: 7 } } });
  await ok("lake: delete", () => dir.delete(true));
  const gone = await ok("lake: deleted paths", async () => {
    const found = await all(fs.listDeletedPaths());
    equal(found.map((p) => p.name).join(), "raw,raw/moved.csv");
    return found[0];
  });
  if (gone) await ok("lake: undelete", () => fs.undeletePath(gone.name, gone.deletionId));
  await ok("lake: what came back", async () => equal((await fs.getFileClient("raw/moved.csv").readToBuffer()).toString(), "hello lake"));
  await ok("lake: file system delete", () => fs.delete());
}

// blobs is the storage protocol by its own client.
async function blobs() {
  const service = (who) => new BlobServiceClient(`https://clientsacct.${world.suffixes.blob}`, credential(who), { retryOptions: { maxTries: 1 } });
  const container = service("admin").getContainerClient("by-node");
  const theirs = service("stranger").getContainerClient("by-node");
  const text = async (b) => (await b.downloadToBuffer()).toString();
  await ok("container create", () => container.create());
  const blob = container.getBlockBlobClient("dir/b.txt");
  await refused("an upload with tags, by who may not set tags", () => blob.upload("first", 5, { tags: { stage: "raw" } }), "AuthorizationPermissionMismatch");
  await ok("blob upload, with metadata", () => blob.upload("first", 5, { metadata: { by: "node" }, blobHTTPHeaders: { blobContentType: "text/plain" } }));
  await ok("blob download", async () => equal(await text(blob), "first"));
  await ok("its properties", async () => {
    const p = await blob.getProperties();
    equal(`${p.contentType} ${p.metadata.by}`, "text/plain node");
  });
  await ok("folders and blobs", async () => equal((await all(container.listBlobsByHierarchy("/"))).map((b) => b.kind + b.name).join(), "prefixdir/"));
  const snapshot = await ok("snapshot", () => blob.createSnapshot());
  const lease = blob.getBlobLeaseClient();
  await ok("acquire a lease", () => lease.acquireLease(15));
  await refused("a write without the lease", () => blob.upload("second", 6), "LeaseIdMissing");
  await ok("a write with it", () => blob.upload("second", 6, { conditions: { leaseId: lease.leaseId } }));
  await ok("release the lease", () => lease.releaseLease());
  if (snapshot) await ok("the snapshot has what was", async () => equal(await text(blob.withSnapshot(snapshot.snapshot)), "first"));
  await ok("blocks from a stream", async () => {
    const big = container.getBlockBlobClient("big");
    await big.uploadData(Buffer.alloc(5 << 20, 7), { blockSize: 1 << 20, maxSingleShotSize: 1 << 20, concurrency: 4 });
    equal((await big.downloadToBuffer(4 << 20, 3)).toString("hex"), "070707");
  });
  await ok("append", async () => {
    const log = container.getAppendBlobClient("log");
    await log.create();
    for (const line of ["a", "b"]) await log.appendBlock(line, 1);
    equal(await text(log), "ab");
  });
  await refused("an append where the blob is longer", () => container.getAppendBlobClient("log").appendBlock("c", 1, { conditions: { appendPosition: 0 } }), "AppendPositionConditionNotMet");
  await ok("copy", async () => {
    const to = container.getBlobClient("copy");
    await (await to.beginCopyFromURL(blob.url)).pollUntilDone();
    equal(await text(to), "second");
  });
  await refused("a stranger's download", () => theirs.getBlobClient("dir/b.txt").downloadToBuffer(), "AuthorizationPermissionMismatch", "403");
  await refused("a stranger's deletion", () => theirs.getBlobClient("dir/b.txt").delete({ deleteSnapshots: "include" }), "AuthorizationPermissionMismatch", "403");
  await refused("a deletion that forgets the snapshot", () => blob.delete(), "SnapshotsPresent");
  await ok("a batch of deletions", async () => {
    const got = await service("admin").getBlobBatchClient().deleteBlobs(["big", "log", "copy"].map((n) => container.getBlobClient(n)));
    equal(got.subResponsesSucceededCount, 3);
  });
  await ok("container delete", () => container.delete());
}

// directory is Graph's own client: people, a group, pages, a batch, and what must be refused.
async function directory() {
  const graph = (who) =>
    Client.init({
      baseUrl: world.graphEndpoint + "/",
      customHosts: new Set([new URL(world.graphEndpoint).hostname]),
      authProvider: (done) => credential(who).getToken(world.graphEndpoint + "/.default").then((t) => done(null, t.token), (e) => done(e, null)),
    });
  const admin = graph("admin");
  const domain = world.admin.userName.split("@")[1];
  const made = [];
  await ok("Graph's users, created", async () => {
    for (const n of ["nell", "nick", "nora"]) {
      const user = { accountEnabled: true, displayName: "Node " + n, mailNickname: n, userPrincipalName: `${n}@${domain}`, passwordProfile: { password: "Correct-Horse-Battery-7!" } };
      made.push((await admin.api("/users").post(user)).id);
    }
  });
  await ok("pages of one, in an order, selected and counted", async () => {
    const first = await admin.api("/users").header("ConsistencyLevel", "eventual").filter("startswith(displayName,'Node ')").orderby("displayName desc").select("displayName").count(true).top(1).get();
    equal(first["@odata.count"], 3);
    const names = [];
    const pages = new PageIterator(admin, first, (u) => names.push(Object.keys(u) + u.displayName), { headers: { ConsistencyLevel: "eventual" } });
    await pages.iterate();
    equal(names.join(), "displayNameNode nora,displayNameNode nick,displayNameNode nell");
  });
  await ok("search", async () => equal((await admin.api("/users").header("ConsistencyLevel", "eventual").search('"displayName:nick"').get()).value.length, 1));
  const group = await ok("a group with members, expanded", async () => {
    const g = await admin.api("/groups").post({ displayName: "Nodes", mailEnabled: false, mailNickname: "nodes", securityEnabled: true, "members@odata.bind": made.map((id) => `${world.graphEndpoint}/v1.0/directoryObjects/${id}`) });
    equal((await admin.api("/groups/" + g.id).expand("members($select=id)").get()).members.length, 3);
    return g.id;
  });
  await ok("a batch, one part after another", async () => {
    const requests = [
      { id: "1", method: "DELETE", url: `/groups/${group}/members/${made[0]}/$ref` },
      { id: "2", method: "GET", url: `/groups/${group}/members/$count`, headers: { ConsistencyLevel: "eventual" }, dependsOn: ["1"] },
    ];
    const { responses } = await admin.api("/$batch").post({ requests });
    equal(responses.map((r) => `${r.id} ${r.status} ${r.body}`).join(), "1 204 undefined,2 200 2");
  });
  await ok("a stranger's batch is refused part by part", async () => {
    const { responses } = await graph("stranger").api("/$batch").post({ requests: [{ id: "1", method: "DELETE", url: "/users/" + made[1] }, { id: "2", method: "GET", url: "/users" }] });
    equal(responses.map((r) => r.status).join(), "403,403");
  });
  await refused("an option that is none", () => admin.api("/users").orderby("accountEnabled").get(), "Request_UnsupportedQuery");
  await ok("the directory's audits, by pages", async () => {
    const first = await admin.api("/auditLogs/directoryAudits").filter("category eq 'UserManagement' and operationType eq 'Add'").top(1).get();
    const found = [];
    await new PageIterator(admin, first, (e) => found.push(e) && found.length < 3).iterate();
    equal(found.map((e) => `${e.activityDisplayName} ${e.result} ${e.initiatedBy.app.servicePrincipalId}`).join(), Array(3).fill(`microsoft.directory/users/create success ${world.admin.objectId}`).join());
    equal((await admin.api("/auditLogs/directoryAudits/" + found[0].id).get()).id, found[0].id);
  });
  await refused("a stranger's directory audits", () => graph("stranger").api("/auditLogs/directoryAudits").get(), "Authorization_RequestDenied");
  await refused("a stranger's users", () => graph("stranger").api("/users").get(), "Authorization_RequestDenied");
  await ok("Graph's objects, deleted", async () => {
    for (const id of made) await admin.api("/users/" + id).delete();
    await admin.api("/groups/" + group).delete();
  });
}

main();
