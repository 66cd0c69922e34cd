"""Short prompts expanded to what training captions look like, by the instruction that these were written with."""

from dataclasses import dataclass

from videodit_data.captioning import prompts
from videodit_data.captioning.captioner import Failure
from videodit_data.captioning.endpoint import Endpoint
from videodit_data.captioning.lengths import Length

MOST_CHARACTERS = 4000  # of a prompt


@dataclass(frozen=True)
class Expansion:
    """A prompt as its user wrote it, what it became, and what wrote that, as `Record.caption_sources` has it."""

    prompt: str
    expanded: str
    source: str


def expand(endpoint: Endpoint, prompt: str, length: Length) -> Expansion | Failure:
    """The prompt as a caption of the given length, or why there is none. ValueError on a prompt without an end."""
    if len(prompt) > MOST_CHARACTERS:
        raise ValueError(f"A prompt to expand has at most {MOST_CHARACTERS} characters, not {len(prompt)}.")
    answer = endpoint.answer(prompts.expand(prompt, [length]), [length])
    if isinstance(answer, Failure):
        return answer
    return Expansion(prompt, answer[length.name], endpoint.identity.source(length.name))
