"""Makes an issuer of tokens as a cluster has one: its key, and its key set for `castellan up --issuers`."""

import json
import os
import sys

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER, KID = "https://cluster.clients.example", "clients"
secret, public = sys.argv[1:3]
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
jwk = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())), "kid": KID, "use": "sig", "alg": "RS256"}
pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
with open(os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
    json.dump({"issuer": ISSUER, "kid": KID, "key": pem}, f)
with open(public, "w") as f:
    json.dump({"keys": {ISSUER: {"keys": [jwk]}}}, f)
