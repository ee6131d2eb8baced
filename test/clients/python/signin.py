"""A person at the sign-in page: fills in the forms that the page shows, as a browser does."""

import html.parser
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


class Person:
    """One person with a browser of their own."""

    def __init__(self, name, password, new_password):
        self.name, self.password, self.new_password = name, password, new_password
        self.browser = requests.Session()

    def enter(self, url, code, steps=8):
        """Opens the page and goes on until it shows no more form; the last page's text."""
        page = self.browser.get(url, timeout=30)
        for _ in range(steps):
            forms = Forms()
            forms.feed(page.text)
            if forms.action is None:
                return " ".join(forms.text)
            if not page.ok:
                raise AssertionError(f"{page.status_code} {' '.join(forms.text)}")
            page = self.browser.post(urllib.parse.urljoin(page.url, forms.action), data=self.fill(forms, code), timeout=30)
        raise AssertionError(f"the page still asks after {steps} steps: {' '.join(forms.text)[-300:]}")

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
        if forms.buttons and forms.buttons[0][0]:  # a person takes the first
            name, value = forms.buttons[0]
            out[name] = value
        return out
