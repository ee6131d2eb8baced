"""The Azure SDK's management clients for Python, as several callers, with a record of what was called.

What a client offers and nobody called is a failure, so that a suite can't be silent about a method.
"""

import fnmatch

from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from checks import load, one_line

world = load("CASTELLAN_WORLD")
subscription = world["subscriptionId"]
arm = world["armEndpoint"]


class Recorder:
    """An operation group, or a client's own methods, that notes what is called."""

    def __init__(self, inner, name, called):
        self._inner, self._name, self._called = inner, name, called

    def __getattr__(self, method):
        f = getattr(self._inner, method)
        self._called.add(f"{self._name}.{method}")
        return f


class Client:
    """One caller's client."""

    def __init__(self, inner, called):
        self._inner, self._called = inner, called

    def __getattr__(self, group):
        return Recorder(getattr(self._inner, group), group, self._called)


class Sdk:
    """A kind of client, for each caller: sdk.admin, sdk.reader, sdk.stranger."""

    def __init__(self, suite, kind, scoped=True):
        self.kind, self.called, self.suite = kind, set(), suite
        for who in ("admin", "reader", "stranger"):
            credential = ClientSecretCredential(world["tenantId"], world[who]["clientId"], world[who]["clientSecret"], authority=world["loginEndpoint"], disable_instance_discovery=True)
            inner = kind(credential, *([subscription] if scoped else []), base_url=arm, credential_scopes=[arm + "/.default"], polling_interval=0.2, retry_total=1)
            setattr(self, who, Client(inner, self.called))

    def offered(self):
        """Every method that the client has."""
        inner = self.admin._inner
        for group in dir(inner):
            if group.startswith("_"):
                continue
            try:
                value = getattr(inner, group)
            except ValueError:  # no such group in the default API version
                continue
            if type(value).__name__.endswith("Operations"):
                yield from (f"{group}.{m}" for m in dir(value) if not m.startswith("_") and m != "models" and callable(getattr(value, m)))

    def settle(self, *absent):
        """Fails unless every method was called or matches one of absent, and each of those matches one."""
        name, offered = self.kind.__name__, set(self.offered())
        without = {a: {o for o in offered if fnmatch.fnmatch(o, a)} for a in absent}
        missing = offered - self.called - set().union(*without.values())
        if missing:
            self.suite.fail(f"{name}: every method", "never called: " + " ".join(sorted(missing)))
        for a, matched in without.items():
            if not matched or matched & self.called:
                self.suite.fail(f"{name}: what is absent", f"{a} is said to be absent, and is {'called' if matched else 'no method'}")


def typed(suite, name, do, status, *codes):
    """do() must fail with the SDK's error, whose status and code are these."""
    try:
        result = do()
        if hasattr(result, "__iter__") and not isinstance(result, (str, dict)):
            result = list(result)
    except HttpResponseError as e:
        got = (e.status_code, getattr(e.error, "code", None))
        if got[0] == status and got[1] in codes:
            print(f"ok {suite.name}: refused: {name}", flush=True)
        else:
            suite.fail("refused: " + name, f"got {got}, want {status} and one of {codes}: {one_line(e)}")
        return
    except Exception as e:
        suite.fail("refused: " + name, e)
        return
    suite.fail("refused: " + name, f"it was allowed, with {one_line(result)[:120]}")
