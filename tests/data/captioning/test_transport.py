import pytest
from videodit_data.captioning.transport import Broken, Client, chat_address, retry_after

from tests.data.captioning.stub import sends


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions"),
        ("https://api.example.com/v1/", "https://api.example.com:443/v1/chat/completions"),
        ("https://example.com/openai/v1/chat/completions", "https://example.com:443/openai/v1/chat/completions"),
        ("https://example.com/api/v3?version=1", "https://example.com:443/api/v3/chat/completions?version=1"),
        ("http://[::1]:80", "http://[::1]:80/v1/chat/completions"),
    ],
)
def test_addresses_may_be_given_whole_or_in_part(url, address):
    assert str(chat_address(url)) == address


@pytest.mark.parametrize(
    "url", ["", "host", "http://", "http:///v1", "file:///etc", "http://a b", "http://a\n", "http://h:x"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="no address of a server"):
        chat_address(url)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("1e9", None),
        ("0", 0),
        (" 12 ", 12),
        ("9" * 5000, 999999999999),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 99 Jan 1970 00:00:00 GMT", None),
    ],
)
def test_servers_ask_to_wait_in_seconds_or_until_a_date(value, seconds):
    assert retry_after(value, 100.0) == seconds


def test_a_reply_comes_whole_whatever_its_status(stub):
    stub.always(sends(b"x" * 50, 418, X_Told="this"))
    client = Client(chat_address(stub.url), most_bytes=50)
    reply = client.post(b"{}", {})
    assert (reply.status, reply.headers["x-told"], reply.body) == (418, "this", b"x" * 50)
    with pytest.raises(Broken, match="more than 49 bytes"):
        Client(chat_address(stub.url), most_bytes=49).post(b"{}", {})


def test_names_that_nobody_has_are_unreachable():
    with pytest.raises(Broken) as broken:
        Client(chat_address("http://nobody.invalid")).post(b"{}", {})
    assert broken.value.reason == "unreachable"
