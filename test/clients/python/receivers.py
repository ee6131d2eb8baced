"""Receivers of logs that nobody here wrote, as children of this process: rsyslog, and the OTLP receiver of OpenTelemetry's collector.

    receivers.py FOLDER COLLECTOR

It writes FOLDER/sinks.json, for `castellan up --sinks`, once they listen. What they get stands in
FOLDER/received-NAME, a record a line. They end with this process.
"""

import datetime
import ipaddress
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

folder, collector = pathlib.Path(sys.argv[1]), sys.argv[2]
running = []


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def certificate():
    """Of 127.0.0.1, signed by itself; the files of it and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    cert = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
    )
    (folder / "receiver.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (folder / "receiver.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return folder / "receiver.pem", folder / "receiver.key"


def start(*command):
    with open(folder / "receivers.log", "a") as log:
        running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))


def listens(at):
    for _ in range(100):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", at)) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"nothing listens on port {at}")


def rsyslog(program):
    """Two inputs of one rsyslog: TCP as RFC 6587 and TLS as RFC 5425 have it."""
    plain, secure = port(), port()
    cert, key = certificate()
    (folder / "rsyslog.conf").write_text(f"""
global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile="{cert}" defaultNetstreamDriverCertFile="{cert}" defaultNetstreamDriverKeyFile="{key}")
module(load="imptcp")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
template(name="message" type="string" string="%pri%|%hostname%|%app-name%|%msgid%|%msg%\\n")
input(type="imptcp" address="127.0.0.1" port="{plain}" ruleset="tcp")
input(type="imtcp" address="127.0.0.1" port="{secure}" ruleset="tls")
ruleset(name="tcp") {{ action(type="omfile" file="{folder}/received-tcp" template="message") }}
ruleset(name="tls") {{ action(type="omfile" file="{folder}/received-tls" template="message") }}
""")
    start(program, "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "rsyslog.pid"))
    listens(plain)
    listens(secure)
    return [
        {"name": "tcp", "syslog": f"tcp://127.0.0.1:{plain}", "everything": True},
        {"name": "tls", "syslog": f"tls://127.0.0.1:{secure}", "caFile": str(cert)},
    ]


sinks = []
program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
if program:
    sinks += rsyslog(program)
at = port()
start(collector, f"127.0.0.1:{at}", str(folder / "received-otlp"))
listens(at)
sinks.append({"name": "otlp", "otlp": f"http://127.0.0.1:{at}/v1/logs", "everything": True})

ended = threading.Event()
for s in (signal.SIGTERM, signal.SIGINT):
    signal.signal(s, lambda *_: ended.set())
(folder / "sinks.new").write_text(json.dumps({"sinks": sinks}))
(folder / "sinks.new").rename(folder / "sinks.json")
ended.wait()
for child in running:
    child.terminate()
for child in running:
    child.wait()
