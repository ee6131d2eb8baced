"""People of others sign in: of OpenLDAP's slapd and of the npm package oidc-provider, by MSAL; and what must be refused."""

import contextlib
import datetime
import html
import ipaddress
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import urllib.parse
import uuid

import msal
import requests
from checks import Suite, equal, load, within
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from signin import Forms, Person

world = load("CASTELLAN_WORLD")
suite = Suite("federation")
here = pathlib.Path(tempfile.mkdtemp(prefix="castellan-federation-"))
AZURE_CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
REDIRECT = "http://localhost:8400"
SUFFIX, READER_PASSWORD, ROOT_PASSWORD = "dc=corp,dc=example", "reader-password", "root-password"


def certificate():
    """A certificate of this suite for loopback, with its key beside it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    cert = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (here / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (here / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return (here / "cert.pem").read_text()


roots = certificate()
# The person's browser trusts both the platform and these servers.
bundle = here / "bundle.pem"
bundle.write_text(pathlib.Path(os.environ["REQUESTS_CA_BUNDLE"]).read_text() + roots)
os.environ["REQUESTS_CA_BUNDLE"] = str(bundle)


def token(scope):
    admin = world["admin"]
    data = {"grant_type": "client_credentials", "client_id": admin["clientId"], "client_secret": admin["clientSecret"], "scope": scope + "/.default"}
    return requests.post(f"{world['loginEndpoint']}/{world['tenantId']}/oauth2/v2.0/token", data=data, timeout=30).json()["access_token"]


def call(method, url, bearer, body=None):
    r = requests.request(method, url, json=body, headers={"Authorization": "Bearer " + bearer}, timeout=60)
    if not r.ok:
        raise AssertionError(f"{method} {url}: {r.status_code} {r.text[:300]}")
    return r.json() if r.content else {}


def graph(method, path, body=None):
    return call(method, f"{world['graphEndpoint']}/v1.0/{path}", token(world["graphEndpoint"]), body)


class Traveller(Person):
    """A person whose browser goes to other providers and back; alter sees every address before the browser goes there."""

    def fill(self, forms, code):
        out = super().fill(forms, code)
        if not forms.action.startswith("/common/") and "login" in out:
            out["login"] = self.name.split("@")[0]  # as they are called there
        return out

    def sign_in(self, url, alter=lambda url: url):
        page = None
        for _ in range(16):
            if url:
                if url.startswith(REDIRECT):
                    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
                page = self.browser.get(alter(url), timeout=30, allow_redirects=False)
            forms = Forms()
            forms.feed(page.text)
            on = re.search(r'<a href="([^"]+)"[^>]*>Go on to ', page.text)
            if page.headers.get("Location"):
                url = urllib.parse.urljoin(page.url, page.headers["Location"])
            elif on:
                url = html.unescape(on[1])
            elif forms.action is None or "wrong" in page.text:
                raise AssertionError(f"{page.status_code} {' '.join(forms.text)[-300:]}")
            else:
                url, page = None, self.answer(page, forms, "", allow_redirects=False)
        raise AssertionError("the pages do not end")


def enter(person, alter=lambda url: url, **how):
    """The token that MSAL has once the person signed in, with its claims."""
    app = msal.PublicClientApplication(AZURE_CLI, authority=f"{world['loginEndpoint']}/{world['tenantId']}", instance_discovery=False)
    flow = app.initiate_auth_code_flow([world["armEndpoint"] + "/.default"], redirect_uri=REDIRECT, **how)
    result = app.acquire_token_by_auth_code_flow(flow, person.sign_in(flow["auth_uri"], alter))
    if "access_token" not in result:
        raise AssertionError(f"{result.get('error')}: {result.get('error_description')}")
    return result["access_token"], result["id_token_claims"]


def resources(bearer):
    return call("GET", f"{world['armEndpoint']}{world['group']}?api-version=2024-11-01", bearer)["name"]


def may_read(group):
    """Gives a group of the directory the role Reader on the group of resources."""
    definition = f"/subscriptions/{world['subscriptionId']}/providers/Microsoft.Authorization/roleDefinitions/{READER}"
    body = {"properties": {"roleDefinitionId": definition, "principalId": group, "principalType": "Group"}}
    url = f"{world['armEndpoint']}{world['group']}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}?api-version=2022-04-01"
    return call("PUT", url, token(world["armEndpoint"]), body)


def group_named(name):
    return next(g["id"] for g in graph("GET", "groups")["value"] if g["displayName"] == name)


# --- an OpenID provider

CLIENT = {"client_id": "castellan", "client_secret": "a secret of the suite", "response_types": ["code"], "grant_types": ["authorization_code"]}
changed = {}


def alter_to(path, **change):
    """Changes the query of addresses whose path holds path."""

    def alter(url):
        at = urllib.parse.urlsplit(url)
        if path not in at.path:
            return url
        query = dict(urllib.parse.parse_qsl(at.query))
        changed.update(query)
        return urllib.parse.urlunsplit(at._replace(query=urllib.parse.urlencode({**query, **change})))

    return alter


def openid(server):
    issuer = server.stdout.readline().strip()
    engineers = graph("POST", "groups", {"displayName": "Engineers", "mailNickname": "engineers", "mailEnabled": False, "securityEnabled": True})["id"]
    provider = graph("POST", "identity/identityProviders", {
        "displayName": "Elsewhere", "issuer": issuer, "clientId": "castellan", "clientSecret": CLIENT["client_secret"], "domains": ["oidc.example"], "certificateAuthorities": roots,
        "groupsClaim": "groups", "groupMappings": [{"claimValue": "engineers", "groupId": engineers}],
    })
    clients = [{**CLIENT, "redirect_uris": [provider["redirectUri"]]}, {**CLIENT, "client_id": "shared", "id_token_signed_response_alg": "HS256", "redirect_uris": [provider["redirectUri"]]}]
    server.stdin.write(json.dumps(clients) + "\n")
    server.stdin.flush()
    equal(server.stdout.readline().strip(), "ready")
    return provider, engineers


def ann():
    return Traveller("ann@oidc.example", "any password", "")


def by_openid(server):
    made = suite.ok("an OpenID provider is believed", lambda: openid(server))
    if not made:
        return
    provider, engineers = made
    at = "identity/identityProviders/" + provider["id"]
    suite.ok("its group may read", lambda: may_read(engineers))
    person = ann()
    got = suite.ok("a person of it signs in by the name that they type", lambda: enter(person))
    if not got:
        return
    bearer, claims = got
    suite.ok("they come to be, with their names", lambda: equal((claims["preferred_username"], claims["name"]), ("ann@oidc.example", "ann of Elsewhere")))
    suite.ok("they may do what the group may", lambda: equal(resources(bearer), "clients"))
    suite.ok("they are the same person again", lambda: equal(enter(ann(), domain_hint="oidc.example")[1]["oid"], claims["oid"]))
    stranger = suite.ok("another person of it signs in", lambda: enter(Traveller("bob@oidc.example", "any", "")))
    if stranger:
        suite.refused("who is not of the group", lambda: resources(stranger[0]), "AuthorizationFailed", "403", "404")

    seen = []
    suite.ok("prompt=login reaches it, and it says when", lambda: [enter(person, lambda u: seen.append(u) or u, prompt="login", domain_hint="oidc.example"), equal(any("prompt=login" in u and "max_age=0" in u for u in seen), True)])
    suite.refused("prompt=login that somebody takes out of the way", lambda: enter(person, alter_away("prompt", "max_age"), prompt="login", domain_hint="oidc.example"), "anew")
    suite.refused("another issuer's answer", lambda: enter(ann(), alter_to("/federation/", iss="https://evil.example"), domain_hint="oidc.example"), "believed")
    suite.refused("another nonce", lambda: enter(ann(), alter_to("/auth", nonce="another"), domain_hint="oidc.example"), "believed")
    suite.refused("another state", lambda: enter(ann(), alter_to("/federation/", state="another"), domain_hint="oidc.example"), "believed", "no sign-in")
    suite.refused("a code of another's sign-in", code_of_another, "believed", "did not sign you in")
    suite.refused("an answer for the second time", answer_twice, "no sign-in")
    suite.ok("a client whose tokens are signed by the secret", lambda: graph("PATCH", at, {"clientId": "shared"}))
    suite.refused("tokens that are signed by the secret", lambda: enter(ann(), domain_hint="oidc.example"), "believed")
    graph("PATCH", at, {"clientId": "castellan"})
    bearer, _ = suite.ok("and signs in again", lambda: enter(ann(), domain_hint="oidc.example")) or ("", None)
    suite.ok("it is disabled", lambda: graph("PATCH", at, {"isEnabled": False}))
    suite.refused("tokens that it led to", lambda: resources(bearer), "401")
    suite.refused("a disabled provider", lambda: enter(ann(), domain_hint="oidc.example"), "wrong")


def alter_away(*names):
    def alter(url):
        at = urllib.parse.urlsplit(url)
        if not at.path.endswith("/auth"):
            return url
        return urllib.parse.urlunsplit(at._replace(query=urllib.parse.urlencode([q for q in urllib.parse.parse_qsl(at.query) if q[0] not in names])))

    return alter


def code_of_another():
    """Somebody else's answer under one's own state."""
    changed.clear()
    with contextlib.suppress(AssertionError):
        enter(Traveller("bob@oidc.example", "any", ""), alter_to("/federation/", state="kept for another"), domain_hint="oidc.example")
    enter(ann(), alter_to("/federation/", code=changed["code"]), domain_hint="oidc.example")


def answer_twice():
    person, seen = ann(), []
    enter(person, lambda u: seen.append(u) or u, domain_hint="oidc.example")
    person.sign_in(next(u for u in seen if "/federation/" in u))


# --- an LDAP directory

def entry(dn, *lines):
    return "\n".join((f"dn: {dn},{SUFFIX}", *lines)) + "\n\n"


def person_entry(uid):
    return entry(f"uid={uid},ou=people", "objectClass: inetOrgPerson", f"uid: {uid}", f"cn: {uid}", f"sn: {uid}", f"displayName: {uid} of Corp", f"userPassword: {uid}-password")


def slapd_at(where):
    """A slapd with its own folder; it ends with the suite."""
    data = here / "ldap"
    data.mkdir()
    conf, program = here / "slapd.conf", here / "slapd"
    # A copy: distributions confine the program by its path to the folders of its package.
    program.write_bytes(pathlib.Path("/usr/sbin/slapd").read_bytes())
    program.chmod(0o700)
    conf.write_text(f"""include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
allow bind_anon_cred
TLSCertificateFile {here}/cert.pem
TLSCertificateKeyFile {here}/key.pem
database mdb
suffix "{SUFFIX}"
rootdn "cn=root,{SUFFIX}"
rootpw {ROOT_PASSWORD}
directory {data}
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
""")
    (here / "start.ldif").write_text(
        f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: Corp\n\n"
        + entry("cn=reader", "objectClass: organizationalRole", "objectClass: simpleSecurityObject", f"userPassword: {READER_PASSWORD}")
        + entry("ou=people", "objectClass: organizationalUnit") + entry("ou=groups", "objectClass: organizationalUnit")
        + person_entry("cleo") + person_entry("dan")
        + entry("cn=scientists,ou=groups", "objectClass: groupOfNames", f"member: uid=cleo,ou=people,{SUFFIX}")
        + entry("cn=company,ou=groups", "objectClass: groupOfNames", f"member: cn=scientists,ou=groups,{SUFFIX}")
    )
    subprocess.run([program, "-Ta", "-f", conf, "-q", "-l", here / "start.ldif"], check=True, capture_output=True, timeout=30)
    return subprocess.Popen([program, "-d", "0", "-f", conf, "-h", where], stderr=subprocess.DEVNULL)


def listens(where):
    at = urllib.parse.urlsplit(where)
    with contextlib.suppress(OSError), socket.create_connection((at.hostname, at.port), timeout=1):
        return True
    return False


def modify(where, ldif):
    subprocess.run(
        ["ldapmodify", "-x", "-H", where, "-D", f"cn=root,{SUFFIX}", "-w", ROOT_PASSWORD], input=ldif, text=True, check=True, capture_output=True, timeout=30,
        env={**os.environ, "LDAPTLS_CACERT": str(here / "cert.pem")},
    )


def by_ldap(where):
    directory = suite.ok("an LDAP directory is believed", lambda: graph("POST", "identity/ldapDirectories", {
        "displayName": "Corp", "url": where, "certificateAuthorities": roots, "bindDn": f"cn=reader,{SUFFIX}", "bindPassword": READER_PASSWORD,
        "userBase": f"ou=people,{SUFFIX}", "groupBase": f"ou=groups,{SUFFIX}", "domains": ["ldap.example"],
    }))
    if not directory:
        return
    sync = f"identity/ldapDirectories/{directory['id']}/synchronize"

    def cleo(password="cleo-password", name="cleo"):
        return Traveller(name + "@ldap.example", password, "")

    got = suite.ok("a person of it signs in", lambda: enter(cleo()))
    if not got:
        return
    bearer, claims = got
    suite.ok("they come to be, with their names", lambda: equal((claims["preferred_username"], claims["name"]), ("cleo@ldap.example", "cleo of Corp")))
    suite.ok("the group over their group may read", lambda: may_read(group_named("company")))
    suite.ok("and so may they", lambda: equal(resources(bearer), "clients"))
    suite.refused("a wrong password", lambda: enter(cleo("another")), "wrong")
    suite.refused("no password", lambda: enter(cleo("")), "wrong")
    suite.refused("a filter for a name", lambda: enter(cleo(name="*)(uid=cleo")), "wrong")
    suite.refused("everybody's name", lambda: enter(cleo(name="*")), "wrong")
    modify(where, f"dn: cn=scientists,ou=groups,{SUFFIX}\nchangetype: modify\nreplace: member\nmember: uid=dan,ou=people,{SUFFIX}\n\n")
    suite.ok("after a change of the group there, a synchronisation", lambda: graph("POST", sync))
    suite.refused("who left the group", lambda: resources(bearer), "AuthorizationFailed", "403", "404")
    modify(where, f"dn: uid=cleo,ou=people,{SUFFIX}\nchangetype: delete\n\n")
    suite.ok("after a deletion there, a synchronisation", lambda: equal(graph("POST", sync)["disabled"], 1))
    suite.refused("whoever is gone there, by the token that they had", lambda: resources(bearer), "401")
    suite.refused("whoever is gone there", lambda: enter(cleo()), "wrong")


def ended(process):
    process.terminate()
    process.wait(timeout=10)


def run(node_modules):
    with contextlib.ExitStack() as stack:
        server = subprocess.Popen(
            ["node", str(pathlib.Path(__file__).parent.parent / "federation" / "provider.js"), node_modules, here / "cert.pem", here / "key.pem"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(here / "node.err").open("w"), text=True,
        )
        stack.callback(ended, server)
        by_openid(server)
    with contextlib.ExitStack() as stack, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"ldaps://127.0.0.1:{free.getsockname()[1]}"
        free.close()
        slapd = suite.ok("slapd starts", lambda: slapd_at(where))
        if slapd:
            stack.callback(ended, slapd)
            suite.ok("and listens", lambda: within(10, lambda: listens(where), 0.05))
            by_ldap(where)
            down = Traveller("dan@ldap.example", "dan-password", "")
            suite.ok("another person of it signs in", lambda: enter(down))
            ended(slapd)
            suite.refused("while the directory is down", lambda: enter(Traveller("dan@ldap.example", "dan-password", "")), "can't be asked")


run(sys.argv[1])
suite.finish()
