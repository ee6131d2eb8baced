"""Certificates of the server from an authority that speaks ACME: Pebble, unmodified, with a DNS of its own.

The server is one of the suite's own, for it is told of the authority at its start.
"""

import datetime
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request

from checks import Suite, equal, must, within
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

suite = Suite("acme")
pebble = pathlib.Path(sys.argv[1])
work = pathlib.Path(tempfile.mkdtemp(prefix="castellan-acme-"))
NAME, SUFFIX = "castellan.localhost", ".castellan.localhost"


def free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# The certificate of Pebble's own listener, and its configuration.
key = ec.generate_private_key(ec.SECP256R1())
now = datetime.datetime.now(datetime.timezone.utc)
who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
own = (
    x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key()).serial_number(1)
    .not_valid_before(now - datetime.timedelta(minutes=1)).not_valid_after(now + datetime.timedelta(days=1))
    .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
    .add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
)
(work / "own.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
(work / "own.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
ports = {n: free() for n in ("directory", "management", "dns", "server")}
LIFE = 12  # seconds that a certificate is valid
(work / "pebble.json").write_text(json.dumps({"pebble": {
    "listenAddress": f"127.0.0.1:{ports['directory']}", "managementListenAddress": f"127.0.0.1:{ports['management']}",
    "certificate": str(work / "own.pem"), "privateKey": str(work / "own.key"), "httpPort": 1, "tlsPort": ports["server"],
    "profiles": {"default": {"description": "short", "validityPeriod": LIFE}},
}}))
DIRECTORY = f"https://localhost:{ports['directory']}/dir"
programs = []


def start(name, *command, **more):
    p = subprocess.Popen(command, stdout=(work / f"{name}.out").open("wb"), stderr=(work / f"{name}.err").open("wb"), **more)
    programs.append(p)
    return p


def authority():
    p = start("pebble", pebble / "pebble", "-config", work / "pebble.json", "-dnsserver", f"127.0.0.1:{ports['dns']}",
              env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"})
    trust = ssl.create_default_context(cafile=work / "own.pem")
    root = within(20, lambda: fetched(f"https://localhost:{ports['management']}/roots/0", trust))
    return p, root


def fetched(url, trust):
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
        return opener.open(url, timeout=5).read().decode()
    except OSError:
        return None


def server(data, **flags):
    command = [os.environ["CASTELLAN_PROGRAM"], "up", "--data", data, "--listen", f"127.0.0.1:{ports['server']}", "--proxy", "127.0.0.1:0", "--json",
               "--acme-directory", DIRECTORY, "--acme-ca", work / "own.pem"]
    p = start("server", *command)
    within(30, lambda: p.poll() is not None or b'"ready":true' in (work / "server.out").read_bytes())
    must(p.poll() is None, (work / "server.err").read_text()[-300:])
    return p


def end(p):
    p.terminate()
    p.wait(20)


def shown(name, root=None):
    """The certificate that the server shows for a name; by root it must verify."""
    trust = ssl.create_default_context(cadata=root) if root else ssl._create_unverified_context()
    with socket.create_connection(("127.0.0.1", ports["server"]), 30) as s, trust.wrap_socket(s, server_hostname=name) as t:
        return x509.load_der_x509_certificate(t.getpeercert(True))


def orders():
    """How many certificates the authority has signed."""
    return (work / "pebble.out").read_text().count("Issued certificate")


try:
    start("dns", pebble / "pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", f"127.0.0.1:{ports['dns']}",
          "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", "")
    issuer, root = authority()
    running = server(work / "data")
    first = suite.ok("the server's name has a certificate of the authority", lambda: shown(NAME, root))
    suite.ok("the directory's name, too", lambda: shown("graph" + SUFFIX, root))
    before = orders()
    suite.ok("the authority was asked for both", lambda: must(before >= 2, f"it has signed {before}"))
    suite.refused("a name of no vault", lambda: shown("nobody.vault" + SUFFIX), "SSL")
    suite.refused("a name of somebody else", lambda: shown("www.example.com"), "SSL")
    suite.ok("the authority was not asked for those", lambda: equal(orders(), before))
    suite.ok("it is renewed in time, without a restart", lambda: must(within(LIFE + 10, lambda: (c := shown(NAME, root)).serial_number != first.serial_number and c), "it is the same"))
    end(running)
    running = server(work / "data")
    suite.ok("a restart goes on with it", lambda: shown(NAME, root))
    end(running)
    end(issuer)
    running = server(work / "other")
    suite.refused("a handshake while the authority is away, and there is no certificate", lambda: shown(NAME), "SSL")
finally:
    for p in programs:
        p.kill()
suite.finish()
