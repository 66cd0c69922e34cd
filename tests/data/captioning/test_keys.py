"""Keys: refused in addresses, masked in whatever repeats them."""

import base64
import html
import json
import random
import string
from urllib.parse import quote, urlsplit

import pytest
from videodit_data.captioning.keys import MASK, KeyMask, find_key, hide_keys
from videodit_data.captioning.transport import chat_address

NAMES = (
    *("key", "api-key", "apikey", "apiKey", "API_KEY", "x-api-key", "subscription-key", "token", "access_token", "sig"),
    *("X-Amz-Signature", "secret", "client_secret", "password", "pwd", "auth", "code", "credential", "sas", "jwt"),
)
GOOD = (
    *(
        "http://h/v1?api-version=2024-02-01",
        "http://h?deployment=Qwen2.5-VL-72B-Instruct&stream=false",
        "http://h?key=",
    ),
    *("http://h/v1/0123456789abcdef0123456789abcdef/gateway", "http://h?tenant=123e4567-e89b-12d3-a456-426614174000"),
    *("http://keyhost/tokens/v1?model=auth0rs&region=eu-west-1", "http://h?encoding=utf-8&decode=1"),
)
VALUES = ("sk-abcdefghijkl", "hf_abcdefghijkl", "AIzaSyA0123456789abcdefghi", "abcdef0123456789abcdef")


@pytest.mark.parametrize("url", GOOD)
def test_addresses_without_a_key_are_good(url):
    assert find_key(urlsplit(url)) is None
    assert chat_address(url).target.endswith(urlsplit(url).query)


@pytest.mark.parametrize("form", ["?{0}=V4lue", "?a=1&{0}=V4lue", "?a=1;{0}=V4lue", "#{0}=V4lue", "/v1?{0}=V4lue&b=2"])
@pytest.mark.parametrize("name", NAMES)
def test_an_address_with_a_key_by_name_is_refused_without_showing_it(name, form):
    with pytest.raises(ValueError, match=f"a key as '{name}'.*--key-env") as refused:
        chat_address("http://host" + form.format(name))
    assert "V4lue" not in str(refused.value)


@pytest.mark.parametrize("form", ["http://h?x={0}", "http://h?{0}", "http://{0}@h", "http://u:{0}@h", "http://h#{0}"])
@pytest.mark.parametrize("value", VALUES)
def test_an_address_with_what_looks_like_a_key_is_refused_without_showing_it(value, form):
    for url in (
        form.format(value),
        form.format(value).replace("http", "htp"),
        form.format(value).replace("h?", "h:x?"),
    ):
        with pytest.raises(ValueError, match="address") as refused:
            chat_address(url)
        assert value not in str(refused.value) and value not in hide_keys(url)
    assert find_key(urlsplit("http://h/v1/sk-abcdefghijkl/chat")) == "a key in its path"


def test_a_mask_hides_every_form_and_every_long_part():
    rng = random.Random(0)
    for _ in range(60):
        key = "".join(rng.choices(string.ascii_letters + string.digits + "-_./+&'\"", k=rng.randrange(12, 80)))
        mask, data = KeyMask(key), key.encode()
        start = rng.randrange(len(key) - 10)
        forms = [key, quote(key, safe=""), html.escape(key), json.dumps(key), data.hex(), data.hex().upper()]
        forms += [base64.b64encode(before + data).decode() for before in (b"", b"x", b"xy", b"Bearer ")]
        forms += ["".join(f"\\u{ord(c):04x}" for c in key), key[start : start + 10], key[:9] + "..."]
        for form in forms:
            shown = mask.mask_parts(f"you sent <{form}>, which is wrong")
            assert MASK in shown and shown.startswith("you sent <")
            assert not any(key[at : at + 8] in shown for at in range(len(key) - 7)), form
            encoded = base64.b64encode(data).decode()
            assert not any(encoded[at : at + 12] in shown for at in range(len(encoded) - 12)), form


def test_other_text_stays():
    text = "An empty street in the rain. " * 20
    assert KeyMask("").mask_parts(text) == KeyMask("EMPTY").mask_parts(text) == text
    assert KeyMask("k").mask("a key") == "a [key]ey"
