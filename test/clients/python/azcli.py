"""The Azure CLI as a suite drives it."""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import tempfile

from checks import load

world = load("CASTELLAN_WORLD")
here = pathlib.Path(tempfile.mkdtemp(prefix="castellan-az-"))
program = os.environ["CASTELLAN_AZ"]


def environment(who):
    """Everybody has an az of their own, signed in as themselves."""
    folder = here / who
    folder.mkdir(exist_ok=True)
    return {
        **os.environ, "AZURE_CONFIG_DIR": str(folder), "AZURE_CORE_COLLECT_TELEMETRY": "no", "AZURE_CORE_NO_COLOR": "1",
        "AZURE_CORE_LOGIN_EXPERIENCE_V2": "off", "AZURE_CORE_ONLY_SHOW_ERRORS": "1",
    }


def az(*words, who="admin"):
    """Runs az; its JSON, or an error with what it said."""
    done = subprocess.run([program, *words, "--output", "json"], env=environment(who), capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"az {words[0]} {words[1] if len(words) > 1 else ''}: {done.stderr.strip()[-4000:]}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def login(name, secret=None, **more):
    """Signs in; the subscription is ours, whatever others a suite has made meanwhile."""
    got = az("login", "--service-principal", "--username", world[name]["clientId"], "--password", secret or world[name]["clientSecret"], "--tenant", world["tenantId"], **more)
    if any(x["isDefault"] and x["id"] != world["subscriptionId"] for x in got or []):
        az("account", "set", "--subscription", world["subscriptionId"], **more)
    return got


def together(*calls):
    """Calls that wait for nothing of each other, all at once; their results."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return [f.result() for f in [pool.submit(c) for c in calls]]
