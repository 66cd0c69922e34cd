"""A captioner that calls an OpenAI-style chat endpoint, with rate limits, timeouts, retries and a failure limit."""

import base64
import io
import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from videodit_data.captioning import prompts
from videodit_data.captioning.captioner import Answer, Clip, Failure, Identity
from videodit_data.captioning.keys import KeyMask
from videodit_data.captioning.lengths import Length, TextError
from videodit_data.captioning.pace import Pace, Sleep, backoff
from videodit_data.captioning.replies import NotChat, chat_text, excerpt, parse_reply
from videodit_data.captioning.transport import Broken, Client, Reply, chat_address, retry_after
from videodit_data.thread_pool import ordered_map

_THROTTLED = "HTTP 429"
# Errors that every request would have: of the key, the path, the address.
_FATAL_STATUSES = {401: "refuses the key", 403: "refuses access", 404: "has no such model or path"}
_NO_SCHEMA = ("HTTP 400", "HTTP 422", "HTTP 501")  # of servers without response_format


@dataclass(frozen=True)
class EndpointConfig:
    """Settings of a chat endpoint: its address, and how requests are made.

    Attributes:
        url: of the server, with or without /v1/chat/completions. model: its name there.
        key_env: the environment variable that holds the key, if one is needed. The key itself is written nowhere.
        concurrency: requests in flight at most. per_minute: requests a minute at most, None for any number.
        attempts: per clip, for any error. dead_after: consecutive failed requests until the run is stopped.
        connect_seconds, deadline_seconds: until there is a connection, and from then on for all of a request.
        first_wait, most_wait: seconds before the second attempt, and at most; a server that requires more is dead.
        most_bytes: of a reply. max_tokens, temperature: as the API has them; None leaves them out.
    """

    url: str
    model: str
    key_env: str | None = None
    concurrency: int = 4
    per_minute: float | int | None = None
    attempts: int = 5
    dead_after: int = 12
    connect_seconds: float | int = 10
    deadline_seconds: float | int = 120
    first_wait: float | int = 1
    most_wait: float | int = 120
    most_bytes: int = 2**20
    max_tokens: int | None = 1024
    temperature: float | int | None = 0.2

    def __post_init__(self) -> None:
        chat_address(self.url)
        if not self.model or not self.model.isprintable():
            raise ValueError("An endpoint needs the name of the model to ask.")
        for name in ("concurrency", "attempts", "dead_after", "connect_seconds", "deadline_seconds", "most_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"An endpoint's {name} must be more than 0, not {getattr(self, name)}.")


class EndpointDown(RuntimeError):
    """The endpoint cannot be used; earlier answers stay valid."""


class Stopped(RuntimeError):
    """The captioner was stopped before there was an answer."""


class _Trouble(Exception):
    """A request without a usable HTTP reply: reason, detail, and the wait in seconds that the server requires."""

    def __init__(self, reason: str, detail: str, wait: float | None = None):
        super().__init__(detail)
        self.reason, self.wait = reason, wait


class Endpoint:
    """A captioner that calls a chat endpoint; safe to share between threads.

    `clock`, `sleep` and `rng` are for tests; without `sleep`, waits end when the endpoint is stopped. ValueError when
    the key's environment variable is not set.
    """

    def __init__(
        self,
        config: EndpointConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep | None = None,
        rng: random.Random | None = None,
    ):
        self.config = config
        settings = {"max_tokens": config.max_tokens, "temperature": config.temperature}
        self.identity = Identity(config.model, prompts.VERSION, settings)
        self._address, self._key = chat_address(config.url), _key(config.key_env)
        self._mask = KeyMask(self._key)
        self._client = Client(
            self._address,
            connect_seconds=config.connect_seconds,
            deadline_seconds=config.deadline_seconds,
            most_bytes=config.most_bytes,
        )
        self._stopping = threading.Event()
        self._sleep = sleep or self._stopping.wait
        self._pace = Pace(config.per_minute, clock=clock, sleep=self._wait)
        self._rng = rng or random.Random()
        self._slots, self._lock = threading.BoundedSemaphore(config.concurrency), threading.Lock()
        self._failed, self._down = 0, ""  # consecutive failed requests, and the reason of giving up
        self._structured = True  # until the server refuses it

    def __call__(self, clips: Sequence[Clip], lengths: Sequence[Length]) -> list[Answer]:
        """Return captions of each clip. EndpointDown when the endpoint is unusable, Stopped after `stop`."""

        def one(clip: Clip) -> Answer:
            return self.answer(prompts.describe(clip, lengths), lengths, clip.frames)

        return list(ordered_map(one, clips, min(self.config.concurrency, len(clips)))) if clips else []

    def stop(self, *, cut: bool = False) -> None:
        """Send no more requests; those in flight are still answered, or with `cut` ended at once."""
        self._stopping.set()
        if cut:
            self._client.abort()

    def answer(
        self, request: prompts.Request, lengths: Sequence[Length], frames: UInt8[np.ndarray, "T Y X 3"] | None = None
    ) -> Answer:
        """Return texts of the lengths for one request, retried until they are valid or `attempts` are used up."""
        pictures = [] if frames is None else [_data_url(frame) for frame in frames]
        failure, structured = Failure("not asked"), self._structured
        for attempt in range(1, self.config.attempts + 1):
            if attempt > 1:
                self._wait(backoff(attempt - 1, self.config.first_wait, self.config.most_wait, self._rng))
            problem = failure.detail if failure.lasting and attempt > 1 else ""
            body = self._body(request, pictures, problem, lengths if structured else None)
            try:
                texts = parse_reply(self._exchange(body), lengths, request.instruction)
            except TextError as error:  # the endpoint works: the next request names the problem
                self._well(structured)
                failure = Failure(error.reason, self._mask.mask_parts(str(error)))
            except _Trouble as trouble:
                failure = Failure(trouble.reason, str(trouble), lasting=False)
                if trouble.wait is not None:
                    self._pace.pause(trouble.wait)
                no_schema = structured and trouble.reason in _NO_SCHEMA
                # A server that refuses the rate or the schema is alive, unless all attempts at a clip end so.
                if attempt == self.config.attempts or not (no_schema or trouble.reason == _THROTTLED):
                    self._failed_once(str(trouble))
                structured = structured and not no_schema
            else:
                self._well(structured)
                return {name: self._mask.mask(text) for name, text in texts.items()}
        return failure

    def _exchange(self, body: bytes) -> str:
        """Return the model's text. TextError when it refuses, _Trouble when the reply is unusable."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "videodit"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        with self._slots:
            self._pace.take()
            self._check_going()
            try:
                reply = self._client.post(body, headers)
            except Broken as error:
                self._check_going()
                raise _Trouble(error.reason, self._mask.mask_parts(str(error))) from None
        if reply.status != 200:
            raise self._status_error(reply)
        try:
            return chat_text(reply.body)
        except NotChat as error:
            raise _Trouble(error.reason, self._mask.mask_parts(str(error))) from None

    def _status_error(self, reply: Reply) -> _Trouble:
        """Return the error of a status other than 200. EndpointDown when other requests would fail as well."""
        reply_text = self._mask.mask_parts(excerpt(reply.body)) or "nothing"
        message = f"{self._address} answers {reply.status}: {reply_text}"
        if 300 <= reply.status < 400:
            self._give_up(f"{self._address} answers {reply.status}: give the address that it redirects to.")
        if reply.status in _FATAL_STATUSES:
            self._give_up(f"{self._address} {_FATAL_STATUSES[reply.status]} ({reply.status}: {reply_text}).")
        wait = retry_after(reply.headers.get("retry-after"), time.time())
        if wait is not None and wait > self.config.most_wait:
            self._give_up(f"{message}, and asks to wait {wait:.0f} seconds, more than {self.config.most_wait:g}.")
        return _Trouble(f"HTTP {reply.status}", message, wait)

    def _body(
        self, request: prompts.Request, pictures: Sequence[str], problem: str, lengths: Sequence[Length] | None
    ) -> bytes:
        """Return the request as JSON; with `lengths`, it requires a reply of their schema."""
        text = "\n\n".join(filter(None, (request.user, problem and prompts.retry_message(problem))))
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
        content: Any = [*parts, {"type": "text", "text": text}] if parts else text
        messages = [{"role": "system", "content": request.rules}, {"role": "user", "content": content}]
        values = {"model": self.config.model, "messages": messages}
        values |= {name: getattr(self.config, name) for name in ("max_tokens", "temperature")}
        if lengths is not None:
            form = {"name": "captions", "strict": True, "schema": prompts.schema(lengths)}
            values["response_format"] = {"type": "json_schema", "json_schema": form}
        return json.dumps({name: value for name, value in values.items() if value is not None}).encode()

    def _wait(self, seconds: float) -> None:
        self._sleep(seconds)
        self._check_going()

    def _check_going(self) -> None:
        if self._down:
            raise EndpointDown(self._down)
        if self._stopping.is_set():
            raise Stopped("The endpoint was stopped before it answered.")

    def _well(self, structured: bool) -> None:
        with self._lock:
            self._failed, self._structured = 0, structured

    def _failed_once(self, detail: str) -> None:
        with self._lock:
            self._failed += 1
            enough = self._failed >= self.config.dead_after
        if enough:
            self._give_up(f"The endpoint failed {self.config.dead_after} times in a row, the last time so: {detail}")

    def _give_up(self, why: str) -> None:
        with self._lock:
            self._down = self._down or why
        self._stopping.set()
        raise EndpointDown(self._down)


def _key(variable: str | None) -> str:
    """Return the key in an environment variable. ValueError, not showing it, when it is unset or unfit for a header."""
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"The environment variable {variable}, which is to hold the endpoint's key, is not set.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"What the environment variable {variable} holds cannot be a key: it has other characters.")
    return key


def _data_url(frame: UInt8[np.ndarray, "Y X 3"]) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
