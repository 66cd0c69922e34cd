"""Prompts expanded by a model to what training captions look like."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from videodit_data.captioning.endpoint import Endpoint, EndpointConfig
from videodit_data.captioning.expand import Expansion, expand
from videodit_data.captioning.lengths import LENGTHS

from videodit.config.json_file import parse_json
from videodit.config.schema import parse_as
from videodit.parallel.distributed import broadcast_text_from_main, on_main_process


@dataclass(frozen=True)
class PromptExpansion:
    """How prompts are expanded.

    Attributes:
        url: server with an OpenAI-style chat API.
        model: its name there.
        key_env: environment variable that holds the key.
        length: of the expanded prompt, a name of `LENGTHS`.
        deadline: seconds of a request.
        or_plain: use the prompt as it is where it cannot be expanded.
    """

    url: str
    model: str
    key_env: str | None = None
    length: str = "medium"
    deadline: int | float = 60
    or_plain: bool = False

    def __post_init__(self):
        if self.length not in LENGTHS:
            raise ValueError(f"a prompt is expanded to one of {', '.join(LENGTHS)}, not '{self.length}'")


@dataclass(frozen=True)
class ExpandedPrompt:
    """What the model is given for a prompt.

    Attributes:
        text: the expanded prompt, or the prompt itself.
        source: what expanded it; None where it is the prompt itself.
        reason: why it is the prompt itself, where it could not be expanded.
    """

    text: str
    source: str | None = None
    reason: str | None = None

    @property
    def provenance(self) -> dict[str, str]:
        """What a sample's provenance records of it."""
        return {} if self.source is None else {"expanded_prompt": self.text, "expanded_by": self.source}


def expand_prompts(config: PromptExpansion | None, prompts: Sequence[str]) -> list[ExpandedPrompt]:
    """Expand prompts, or return them as they are if `config` is None.

    The main process asks for all processes, since no two answers need be alike.

    Raises:
        ValueError: when a prompt cannot be expanded and `or_plain` is not set.
    """
    if config is None:
        return [ExpandedPrompt(prompt) for prompt in prompts]
    expanded: list[dict[str, str | None]] = []
    on_main_process(lambda: expanded.extend(vars(prompt) for prompt in _expand(config, prompts)))
    fields = parse_json(broadcast_text_from_main(json.dumps(expanded)))
    return list(parse_as(tuple[ExpandedPrompt, ...], fields, "expanded prompts"))


def _expand(config: PromptExpansion, prompts: Sequence[str]) -> list[ExpandedPrompt]:
    # Somebody waits: few attempts, and every failure is reported.
    endpoint_config = EndpointConfig(
        config.url,
        config.model,
        key_env=config.key_env,
        attempts=3,
        deadline_seconds=config.deadline,
        most_wait=20,
    )
    endpoint, expanded = Endpoint(endpoint_config), []

    def expand_one(prompt: str) -> Expansion | str:
        try:
            answer = expand(endpoint, prompt, LENGTHS[config.length])
        except RuntimeError as error:
            return str(error)
        return answer if isinstance(answer, Expansion) else f"{answer.reason}: {answer.detail}"

    pool = ThreadPoolExecutor(endpoint_config.concurrency)
    try:
        futures = [pool.submit(expand_one, prompt) for prompt in prompts]
        for prompt, answer in zip(prompts, (future.result() for future in futures), strict=True):
            if isinstance(answer, Expansion):
                expanded.append(ExpandedPrompt(answer.expanded, source=answer.source))
            elif config.or_plain:
                expanded.append(ExpandedPrompt(prompt, reason=answer))
            else:
                raise ValueError(f"'{prompt[:60]}' cannot be expanded ({answer}); --expand-or-plain takes it as it is")
    finally:
        endpoint.stop(cut=True)
        pool.shutdown(cancel_futures=True)
    return expanded
