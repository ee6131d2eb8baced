"""A person at the sign-in page: fills in the forms that the page shows, as a browser does."""

import base64
import hmac
import html.parser
import re
import struct
import time
import urllib.parse

import requests


class Forms(html.parser.HTMLParser):
    """The page's form (action, fields with their types, buttons) and its text."""

    def __init__(self):
        super().__init__()
        self.action, self.fields, self.types, self.buttons, self.text = None, {}, {}, [], []

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if tag == "form":
            self.action = a.get("action", "")
        if tag == "input" and a.get("name"):
            self.fields[a["name"]] = a.get("value") or ""
            self.types[a["name"]] = a.get("type", "text")
        if tag == "button":
            self.buttons.append((a.get("name"), a.get("value", "")))

    def handle_data(self, data):
        if data.strip():
            self.text.append(data.strip())


def one_time_code(key):
    """What an authenticator app shows now (RFC 6238)."""
    mac = hmac.digest(base64.b32decode(key), struct.pack(">Q", int(time.time()) // 30), "sha1")
    at = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[at:at + 4])[0] & 0x7FFFFFFF) % 10**6:06}"


class Person:
    """One person with a browser of their own, who adds an authenticator app where the pages ask for one."""

    def __init__(self, name, password, new_password):
        self.name, self.password, self.new_password = name, password, new_password
        self.recovery = []  # codes that stand in for the app's, each good once
        self.browser = requests.Session()

    def enter(self, url, code, steps=12):
        """Opens the page and goes on until it shows no more form; the last page's text."""
        page = self.browser.get(url, timeout=30)
        for _ in range(steps):
            forms = Forms()
            forms.feed(page.text)
            if forms.action is None:
                return " ".join(forms.text)
            page = self.answer(page, forms, code)
        raise AssertionError(f"the page still asks after {steps} steps: {' '.join(forms.text)[-300:]}")

    def sign_in(self, url, steps=12):
        """Goes on until the browser is sent to a program on this machine; what it is sent there with."""
        page = self.browser.get(url, timeout=30, allow_redirects=False)
        for _ in range(steps):
            to = page.headers.get("Location", "")
            if to.startswith("http://localhost"):
                return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(to).query))
            if to:
                page = self.browser.get(urllib.parse.urljoin(page.url, to), timeout=30, allow_redirects=False)
                continue
            forms = Forms()
            forms.feed(page.text)
            if forms.action is None:
                raise AssertionError(f"{page.status_code} {' '.join(forms.text)[-300:]}")
            page = self.answer(page, forms, "", allow_redirects=False)
        raise AssertionError(f"the pages still ask after {steps} steps")

    def answer(self, page, forms, code, **how):
        """Sends the page's form."""
        if not page.ok:
            raise AssertionError(f"{page.status_code} {' '.join(forms.text)}")
        self.recovery = re.findall(r"<li><code>([A-Z0-9-]+)</code></li>", page.text) or self.recovery
        key = re.search(r'<code class="key">([A-Z2-7 ]+)</code>', page.text)
        if key:
            code = one_time_code(key[1].replace(" ", ""))
        elif forms.action.endswith("/common/factor"):
            code = self.recovery.pop()
        return self.browser.post(urllib.parse.urljoin(page.url, forms.action), data=self.fill(forms, code), timeout=30, **how)

    def fill(self, forms, code):
        """What this person types into the fields that a person sees."""
        out, passwords = dict(forms.fields), [n for n, t in forms.types.items() if t == "password"]
        for name, kind in forms.types.items():
            if kind in ("text", "email") and not out[name]:
                out[name] = code if name == "otc" or "code" in name.lower() else self.name
        if len(passwords) == 1:
            out[passwords[0]] = self.password
        if len(passwords) > 1:  # a change: new twice, after the old one where it is asked
            for name in passwords:
                out[name] = self.new_password
            if len(passwords) == 3:
                out[passwords[0]] = self.password
            self.password = self.new_password
        if forms.buttons and forms.buttons[0][0]:  # a person takes the first, but for a passkey, which needs a device
            name, value = next((b for b in forms.buttons if b[1] == "app"), forms.buttons[0])
            out[name] = value
        return out
