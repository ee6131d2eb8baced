"""Checks of a suite, one printed line each: `ok SUITE: NAME` or `FAIL SUITE: NAME: WHY`."""

import json
import os
import sys
import time


def load(variable):
    """The JSON file that the environment names."""
    with open(os.environ[variable]) as f:
        return json.load(f)


def one_line(error):
    """An error's text, short enough for a line."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
    return " ".join(text.split())[:600]


def say(line):
    """Prints a whole line at once: checks may run side by side."""
    print(line + "\n", end="", flush=True)


class Suite:
    """A suite goes on after a failed check; what depends on it fails by itself."""

    def __init__(self, name):
        self.name = name
        self.failed = 0

    def ok(self, name, do):
        """do() must not raise; its result is handed back (None after a failure)."""
        try:
            result = do()
        except Exception as e:  # a failed check, whatever it is
            return self.fail(name, e)
        say(f"ok {self.name}: {name}")
        return result

    def refused(self, name, do, *wanted):
        """do() must fail, and the client's error must hold one of wanted."""
        try:
            result = do()
        except Exception as e:
            text = f"{e} {getattr(e, 'message', '')} {getattr(e, 'status_code', '')} {getattr(e, 'error_code', '')}"
            if any(w.lower() in text.lower() for w in wanted):
                say(f"ok {self.name}: refused: {name}")
                return
            self.fail("refused: " + name, f"refused by {one_line(e)}, wanted one of {wanted}")
            return
        self.fail("refused: " + name, f"it was allowed, with {one_line(result)[:120]}")

    def fail(self, name, why):
        self.failed += 1
        say(f"FAIL {self.name}: {name}: {one_line(why)}")

    def finish(self):
        """The last line tells the runner that nothing was cut short."""
        say(f"done {self.name}")
        sys.exit(1 if self.failed else 0)


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")
    return got


def within(seconds, look, every=0.5):
    """look() until it is true, for what the server does by itself."""
    end = time.monotonic() + seconds
    while not (got := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not so after {seconds} s: {got!r}")
        time.sleep(every)
    return got


def must(condition, text):
    if not condition:
        raise AssertionError(text)
    return condition
