"""Expansion of short prompts to the style of training captions, by the instruction that captions were written with."""

from dataclasses import dataclass

from videodit_data.captioning import prompts
from videodit_data.captioning.captioner import Failure
from videodit_data.captioning.endpoint import Endpoint
from videodit_data.captioning.lengths import Length

MOST_CHARACTERS = 4000  # of a prompt


@dataclass(frozen=True)
class Expansion:
    """The user's prompt, its expansion, and the expansion's source in the form of `Record.caption_sources`."""

    prompt: str
    expanded: str
    source: str


def expand(endpoint: Endpoint, prompt: str, length: Length) -> Expansion | Failure:
    """Expand the prompt to a caption of a length, or return the failure. ValueError on a prompt that is too long."""
    if len(prompt) > MOST_CHARACTERS:
        raise ValueError(f"A prompt to expand has at most {MOST_CHARACTERS} characters, not {len(prompt)}.")
    answer = endpoint.answer(prompts.expand(prompt, [length]), [length])
    if isinstance(answer, Failure):
        return answer
    return Expansion(prompt, answer[length.name], endpoint.identity.source(length.name))
