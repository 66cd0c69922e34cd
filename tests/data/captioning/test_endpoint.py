import base64
import itertools
import json
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from videodit_data.captioning.captioner import Failure, ask
from videodit_data.captioning.endpoint import Endpoint, EndpointConfig, EndpointDown, Stopped
from videodit_data.captioning.expand import expand
from videodit_data.captioning.lengths import LENGTHS, parse_lengths

from tests.data.captioning import stub as server
from tests.data.captioning.stub import cuts, drips, garbles, hangs_up, says, sends, stalls, text_of, valid_reply

SHORT = (LENGTHS["short"],)
BOTH = parse_lengths("short,long")
GOOD = json.dumps({"short": text_of("short")})


def test_each_clip_is_captioned_in_all_lengths_and_shown_as_pictures(stub, endpoint, clips):
    answers = ask(endpoint(), clips(3), BOTH)
    assert [list(answer) for answer in answers] == [["short", "long"]] * 3
    assert len({answer["long"] for answer in answers}) == 3
    path, headers, body = stub.requests[0]
    assert path == "/v1/chat/completions" and "Authorization" not in headers and body["model"] == "eyes"
    *pictures, words = body["messages"][1]["content"]
    assert [part["image_url"]["url"][:23] for part in pictures] == ["data:image/jpeg;base64,"] * 2
    assert "known of" in words["text"]
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["short", "long"]


# The server's first reactions, and the total number of requests until the reply is valid.
RECOVERS = {
    "at once": ([], 1),
    "too many requests": ([sends(b"slow down", 429, Retry_After="7")], 2),
    "errors of the server": ([sends(b"", 500), sends(b"oh", 503)], 3),
    "body cut": ([cuts], 2),
    "no reply": ([hangs_up], 2),
    "no HTTP": ([garbles], 2),
    "HTML": ([sends(b"<html>busy</html>")], 2),
    "no choices": ([sends(b'{"choices": []}')], 2),
    "no message": ([sends(b'{"choices": [{}]}')], 2),
    "a list": ([sends(b"[1, 2]")], 2),
    "not UTF-8": ([sends(b'{"choices": "\xff\xfe"}')], 2),
    "brackets without end": ([sends(b"[" * 100_000)], 2),
    "huge": ([sends(b" " * 70_000)], 2),
    "no text": ([says(None)], 2),
    "prose": ([says("A cube rolls down a long hill.")], 2),
    "a refusal": ([says("I'm sorry, but I can't help with that.")], 2),
    "a refusal in JSON": ([says('{"short": "I cannot describe this clip, I am afraid."}')], 2),
    "a refusal by the API": ([says(GOOD, finish_reason="content_filter")], 2),
    "cut short": ([says(GOOD, finish_reason="length")], 2),
    "other keys": ([says('{"caption": "A cube rolls down a long hill."}')], 2),
    "empty": ([says('{"short": "  "}')], 2),
    "control characters": ([says('{"short": "A cube rolls \\u0007 down a hill."}')], 2),
    "half a letter": ([says('{"short": "A cube rolls \\ud800 down a hill."}')], 2),
    "too long": ([says(json.dumps({"short": "word " * 100}))], 2),
    "a fence": ([says(f"```json\n{GOOD}\n```")], 1),
    "all in turn": ([sends(b"", 500), says("{"), cuts, sends(b"<html>")], 5),
}


@pytest.mark.parametrize("case", RECOVERS)
def test_what_goes_wrong_once_is_tried_again(stub, endpoint, clips, case):
    reactions, request_count = RECOVERS[case]
    stub.script(reactions)
    (answer,) = ask(endpoint(attempts=5, most_bytes=65536), clips(1), SHORT)
    assert set(answer) == {"short"}
    assert len(stub.requests) == request_count


@pytest.mark.parametrize(
    ("reaction", "reason"),
    [
        (sends(b"full", 500), "HTTP 500"),
        (sends(b"slow", 429), "HTTP 429"),
        (sends(b"what?", 400), "HTTP 400"),
        (cuts, "connection lost"),
        (garbles, "connection lost"),
        (sends(b"<html>"), "not JSON"),
        (sends(b"{}"), "not a chat reply"),
        (sends(b"\xff"), "not UTF-8"),
        (sends(b" " * 70_000), "reply too large"),
        (says("no"), "no captions"),
        (says("[]"), "no captions"),
        (says("Sorry, no."), "refusal"),
        (says('{"short": "one"}'), "too short"),
    ],
)
def test_what_goes_wrong_each_time_is_a_named_failure_after_so_many_attempts(stub, endpoint, clips, reaction, reason):
    stub.always(reaction)
    (answer,) = ask(endpoint(most_bytes=65536), clips(1), SHORT)
    assert isinstance(answer, Failure) and answer.reason == reason and answer.detail.isprintable()
    assert len(stub.requests) == 3


@pytest.mark.parametrize("where", ["head", "body", "chunks", "nothing"])
def test_a_server_without_an_end_is_left_at_the_deadline(stub, endpoint, clips, where):
    stub.script([stalls if where == "nothing" else drips(where)])
    (answer,) = ask(endpoint(deadline_seconds=0.3, attempts=9), clips(1), SHORT)
    assert set(answer) == {"short"} and len(stub.requests) > 1
    stub.react = lambda number: stalls
    (answer,) = ask(endpoint(deadline_seconds=0.1, attempts=1), clips(1), SHORT)
    assert (answer.reason, answer.lasting) == ("deadline passed", False)


def test_a_retry_names_the_problem_of_an_invalid_reply_only(stub, endpoint, clips):
    stub.script([sends(b"", 500), says('{"short": "one"}'), valid_reply])
    ask(endpoint(), clips(1), SHORT)
    prompts_sent = [body["messages"][1]["content"][-1]["text"] for _, _, body in stub.requests]
    assert prompts_sent[0] == prompts_sent[1] != prompts_sent[2]
    assert prompts_sent[2].startswith(prompts_sent[0]) and "has 1 words, not 5 to 20" in prompts_sent[2]


def test_a_server_that_knows_no_schema_is_asked_without_one_from_then_on(stub, endpoint, clips):
    def plain_only(handler: server.Handler) -> None:
        sends(b"response_format?", 400)(handler) if "response_format" in handler.body else valid_reply(handler)

    stub.always(plain_only)
    assert all(isinstance(answer, dict) for answer in ask(endpoint(concurrency=1), clips(3), SHORT))
    assert ["response_format" in body for _, _, body in stub.requests] == [True, False, False, False]


def test_a_server_that_knows_no_schema_is_not_dead_for_being_asked_by_many_at_once(stub, endpoint, clips):
    barrier = threading.Barrier(5, timeout=20)

    def plain_only(handler: server.Handler) -> None:
        if "response_format" not in handler.body:
            return valid_reply(handler)
        barrier.wait()
        sends(b"response_format?", 400)(handler)

    stub.always(plain_only)
    answers = ask(endpoint(concurrency=5, dead_after=5), clips(5), SHORT)
    assert all(isinstance(answer, dict) for answer in answers)
    stub.always(sends(b"what?", 400))
    with pytest.raises(EndpointDown, match="failed 3 times in a row"):
        ask(endpoint(attempts=1, dead_after=3, concurrency=1), clips(3), SHORT)


def test_waits_grow_up_to_a_most_and_a_server_may_name_them(stub, endpoint, clips, time):
    stub.always(sends(b"", 500))
    ask(endpoint(attempts=6, first_wait=2, most_wait=10), clips(1), SHORT)
    for waited, most in zip(time.slept, (2, 4, 8, 10, 10), strict=True):
        assert most / 2 <= waited <= most
    time.slept.clear()
    stub.requests.clear()
    stub.script([sends(b"", 503, Retry_After="33")])
    before = time.now
    ask(endpoint(first_wait=2), clips(1), SHORT)
    assert time.now - before == pytest.approx(33)


def test_a_pause_that_the_server_wishes_holds_for_all(stub, endpoint, clips, time):
    """Check that the next request waits too, not only the one that got the reply."""
    stub.script([sends(b"", 429, Retry_After="50")])
    asker = endpoint(attempts=1)
    (first,) = ask(asker, clips(1), SHORT)
    before = time.now
    assert first.reason == "HTTP 429" and isinstance(ask(asker, clips(1), SHORT)[0], dict)
    assert time.now - before == pytest.approx(50)


def test_the_rate_is_kept_whatever_the_server_does(stub, endpoint, clips, time):
    times: list[float] = []

    def react(number: int) -> server.Reaction:
        times.append(time.now)
        return [valid_reply, sends(b"", 500), says("no"), sends(b"", 429)][number % 4]

    stub.react = react
    ask(endpoint(per_minute=30, first_wait=0.001, attempts=9, concurrency=1), clips(12), SHORT)
    assert len(times) > 12
    assert min(b - a for a, b in itertools.pairwise(times)) >= 2 - 1e-9


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_than_so_many_requests_are_in_flight(stub, endpoint, clips, concurrency):
    running: list[int] = []
    counts: list[int] = []

    def slow(handler: server.Handler) -> None:
        running.append(1)
        counts.append(len(running))
        stub.over.wait(0.03)
        running.pop()  # before the reply, after which the next request may come at once
        valid_reply(handler)

    stub.always(slow)
    asker = endpoint(concurrency=concurrency)
    with ThreadPoolExecutor(4) as pool:  # callers of their own accord
        answers = list(pool.map(lambda clip: ask(asker, [clip], SHORT)[0], clips(8)))
        answers += ask(asker, clips(4), SHORT)
    assert all(isinstance(answer, dict) for answer in answers)
    assert max(counts) == concurrency


def test_a_dead_endpoint_ends_it_after_so_many_failures(stub, endpoint, clips):
    stub.always(hangs_up)
    with pytest.raises(EndpointDown, match=r"failed 7 times in a row, the last time so: http://127.* ended the conn"):
        ask(endpoint(dead_after=7, concurrency=1), clips(9), SHORT)
    assert len(stub.requests) == 7


def test_nobody_there_is_a_dead_endpoint(time, clips):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = EndpointConfig(f"http://127.0.0.1:{port}", "eyes", dead_after=4)
    with pytest.raises(EndpointDown, match="cannot be reached \\(Connection refused\\)"):
        ask(Endpoint(config, clock=time, sleep=time.sleep), clips(2), SHORT)


def test_an_endpoint_that_fails_now_and_then_is_not_dead(stub, endpoint, clips):
    stub.react = lambda number: valid_reply if number % 3 == 2 else sends(b"", 500)
    answers = ask(endpoint(dead_after=3, concurrency=1), clips(10), SHORT)
    assert all(isinstance(answer, dict) for answer in answers)


def test_a_server_that_only_throttles_is_asked_for_longer_but_not_for_ever(stub, endpoint, clips):
    stub.always(sends(b"", 429))
    with pytest.raises(EndpointDown, match="answers 429"):
        ask(endpoint(dead_after=4, concurrency=1), clips(9), SHORT)
    assert len(stub.requests) == 4 * 3


@pytest.mark.parametrize(
    ("reaction", "words"),
    [
        (sends(b"{}", 401), "refuses the key"),
        (sends(b"{}", 403), "refuses access"),
        (sends(b"no such model", 404), "no such model or path"),
        (sends(b"", 307, Location="http://elsewhere"), "give the address that it redirects to"),
        (sends(b"", 429, Retry_After="90000"), "asks to wait 90000 seconds, more than 120"),
    ],
)
def test_what_no_other_request_would_change_ends_it_at_once(stub, endpoint, clips, reaction, words):
    stub.always(reaction)
    with pytest.raises(EndpointDown, match=words):
        ask(endpoint(concurrency=1), clips(3), SHORT)
    assert len(stub.requests) == 1


def test_stopping_ends_waits_and_cutting_ends_requests(stub, clips):
    stub.always(stalls)
    asker = Endpoint(EndpointConfig(stub.url, "eyes", deadline_seconds=60))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ask, asker, clips(1), SHORT)
        while not stub.requests:
            stub.over.wait(0.005)
        asker.stop(cut=True)
        assert isinstance(future.exception(), Stopped)
    stub.always(sends(b"", 500))
    asker = Endpoint(EndpointConfig(stub.url, "eyes", first_wait=60))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ask, asker, clips(1), SHORT)
        while len(stub.requests) < 2:
            stub.over.wait(0.005)
        asker.stop()
        assert isinstance(future.exception(), Stopped)


KEY = "sk-very.Secret_123"


def echoes_key(handler: server.Handler) -> None:
    authorization = handler.headers["Authorization"].encode()
    assert KEY.encode() in authorization
    handler.reply(500, b"you sent " + authorization)


def echoes_in_status_line(handler: server.Handler) -> None:
    handler.wfile.write(b"HTTP/one " + KEY.encode() + b"\r\n\r\n")
    handler.close_connection = True


ESCAPED = "".join(f"\\u{ord(c):04x}" for c in KEY)
ECHOES = {
    "in an error": echoes_key,
    "alone": sends(KEY.encode(), 401),
    "as no JSON": sends(KEY.encode()),
    "as the text": says(KEY),
    "in a caption": says(json.dumps({"short": f"A cube rolls down a long hill of {KEY}."})),
    "escaped in a caption": says('{"short": "A cube rolls down a long hill of ' + ESCAPED + '."}'),
    "half escaped": says('{"short": "A cube rolls down a long hill of \\u0073' + KEY[1:] + '."}'),
    "in a key of the reply": says(json.dumps({KEY: "A cube rolls down a long hill."})),
    "quoted": sends(quote(KEY, safe="").replace(".", "%2E").encode(), 500),
    "in base64": sends(base64.b64encode(f"Bearer {KEY}".encode()), 403),
    "cut": sends(KEY[:14].encode() + b"...", 401),
    "in the status line": echoes_in_status_line,
    "not at all": valid_reply,
}


@pytest.mark.parametrize("reaction", ECHOES.values(), ids=ECHOES.keys())
def test_the_key_is_sent_and_appears_in_no_output(stub, endpoint, clips, monkeypatch, caplog, reaction):
    monkeypatch.setenv("EYES_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    stub.always(reaction)
    asker = endpoint(key_env="EYES_KEY", dead_after=99)
    try:
        output = str(ask(asker, clips(1), SHORT))
    except EndpointDown as error:
        output = str(error)
    assert stub.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    written = output + caplog.text + repr(asker.config) + repr(asker.identity) + repr(asker)
    assert not any(KEY[at : at + 12] in written for at in range(len(KEY) - 11))
    assert base64.b64encode(KEY.encode()).decode()[:16] not in written


@pytest.mark.parametrize("value", [None, " ", "two words", "line\nbreak", "schlüssel"])
def test_a_key_that_is_none_is_refused_without_being_told(monkeypatch, value):
    monkeypatch.delenv("EYES_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("EYES_KEY", value)
    with pytest.raises(ValueError, match="EYES_KEY") as refused:
        Endpoint(EndpointConfig("http://localhost", "eyes", key_env="EYES_KEY"))
    assert not (value or "").strip() or value not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "localhost:8000"}, "no address of a server"),
        ({"url": "ftp://host"}, "no address of a server"),
        ({"url": "http://me:pass@host"}, "environment variable"),
        ({"url": "http://host:99999"}, "no address of a server"),
        ({"model": ""}, "name of the model"),
        ({"concurrency": 0}, "concurrency must be more than 0"),
        ({"attempts": 0}, "attempts must be more than 0"),
    ],
)
def test_bad_settings_are_refused(change, words):
    with pytest.raises(ValueError, match=words) as refused:
        EndpointConfig(**{"url": "http://host", "model": "eyes"} | change)
    assert "me:pass" not in str(refused.value)


def test_a_prompt_is_expanded_by_the_same_endpoint(stub, endpoint):
    expansion = expand(endpoint(), "a cat surfs", LENGTHS["medium"])
    assert expansion.prompt == "a cat surfs" and expansion.source == "eyes, template 1, medium"
    body = stub.requests[0][2]
    assert isinstance(body["messages"][1]["content"], str) and '"a cat surfs"' in body["messages"][1]["content"]
    stub.always(says("no"))
    assert expand(endpoint(), "a cat surfs", LENGTHS["medium"]).reason == "no captions"
    with pytest.raises(ValueError, match="at most 4000 characters"):
        expand(endpoint(), "cat " * 2000, LENGTHS["medium"])
