"""Reads a report as a browser would: elements with their attributes and texts."""

import json
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page in order, each a dict with its tag, attributes, text and the tags around it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        around = [element["tag"] for element in self._open]
        element = {
            "tag": tag,
            "attrs": {k: v if v is not None else "" for k, v in attrs},
            "text": "",
            "in": around,
        }
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]

    def with_class(self, name):
        return [e for e in self.elements if name in e["attrs"].get("class", "").split()]

    @property
    def specs(self):
        """Specifications of the figures."""
        scripts = self.all("script")
        return [json.loads(s["text"]) for s in scripts if s["attrs"].get("type") == "application/json"]

    def table(self, heading):
        """Heads and rows, as texts, of the table under a heading."""
        texts = [e["text"] for e in self.all("h3", "h4", "table")]
        number = texts.index(heading)
        place = sum(e["tag"] == "table" for e in self.all("h3", "h4", "table")[:number])
        at = [i for i, e in enumerate(self.elements) if e["tag"] == "table"][place]
        rows = []
        for element in self.elements[at + 1 :]:
            if "table" not in element["in"]:
                break
            if element["tag"] == "tr":
                rows.append([])
            elif element["tag"] in ("th", "td"):
                rows[-1].append(element["text"])
        return rows[0], rows[1:]
