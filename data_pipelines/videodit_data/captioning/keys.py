"""Keys of endpoints: addresses that hold one are refused, and replies that repeat one are masked."""

import base64
import html
import json
import re
from urllib.parse import SplitResult, parse_qsl, quote

MASK = "[key]"
_WORDS = {"key", "keys", "apikey", "token", "secret", "password", "passwd", "pwd", "pass", "code", "session", "jwt"}
_WORDS |= {"auth", "authorization", "bearer", "credential", "credentials", "sig", "signature", "sas"}
_ENDINGS = ("key", "token", "secret", "password", "signature", "credential", "credentials")
_KNOWN = re.compile(
    r"(?:sk|pk|rk|gsk|ghp|gho|hf|glpat|nvapi|xox[abpr])[-_]\w{8,}|AIza\w{20,}|AKIA\w{12,}|eyJ[\w-]{9,}\."
)
_RUN = re.compile(r"(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{20,}")  # letters and digits: no word, date or UUID
_PART = 8  # characters of a key that are masked in a message, too


def find_key(parts: SplitResult) -> str | None:
    """Return a phrase for the part of an address that looks like a key, None if there is none."""
    if "@" in parts.netloc:
        return "a name or password"
    for where in (parts.query, parts.fragment):
        for name, value in parse_qsl(where.replace(";", "&"), keep_blank_values=True):
            if (value and _is_key_name(name)) or _is_key(value):
                return f"a key as '{name}'"
            if _is_key(name):
                return "a key"
    return "a key in its path" if any(map(_KNOWN.match, parts.path.split("/"))) else None


def _is_key_name(name: str) -> bool:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+", " ", name).lower().split()
    return not _WORDS.isdisjoint(words) or "".join(words).endswith(_ENDINGS)


def _is_key(value: str) -> bool:
    return bool(_KNOWN.match(value) or _RUN.search(value))


def hide_keys(url: str) -> str:
    """Return an address to show in a message: without a name, password, query or fragment."""
    url = re.sub(r"//.*@", f"//{MASK}@", url)
    return "/".join(MASK if _KNOWN.match(part) else part for part in re.sub(r"[?#].*", "?...", url).split("/"))


class KeyMask:
    """A mask of one key, plain or as replies may repeat it: escaped, quoted, hexadecimal or in base64.

    An empty key masks nothing.
    """

    def __init__(self, key: str):
        self._forms = sorted(_forms(key), key=len, reverse=True) if key else []
        self._parts: dict[int, set[str]] = {}
        for form in self._forms:
            size = min(_PART, len(form))
            self._parts.setdefault(size, set()).update(form[at : at + size] for at in range(len(form) - size + 1))

    def mask(self, text: str) -> str:
        """Return the text with the key replaced where it stands whole."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return text

    def mask_parts(self, text: str) -> str:
        """Return a message with the key replaced, and every part of it of 8 characters or more."""
        text = self.mask(text)
        hidden = [False] * len(text)
        for size, parts in self._parts.items():
            for at in range(len(text) - size + 1):
                if text[at : at + size] in parts:
                    hidden[at : at + size] = [True] * size
        shown = "".join("\0" if hide else c for c, hide in zip(text, hidden, strict=True))
        return re.sub("\0+", MASK, shown)


def _forms(key: str) -> set[str]:
    data = key.encode()
    quoted = quote(key, safe="")
    forms = {
        key,
        quoted,
        re.sub("%..", lambda match: match[0].lower(), quoted),
        html.escape(key),
        json.dumps(key)[1:-1],
    }
    forms |= {key.replace("/", "\\/"), "".join(f"\\u{ord(c):04x}" for c in key), data.hex(), data.hex().upper()}
    for offset in range(3):  # of the key in what was encoded
        encoded = base64.b64encode(bytes(offset) + data).decode()
        first, last = -(-offset * 8 // 6), len(encoded.rstrip("=")) - ("=" in encoded)
        if last - first >= _PART:
            forms |= {encoded[first:last], encoded[first:last].replace("+", "-").replace("/", "_")}
    return forms
