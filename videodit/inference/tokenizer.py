"""The tokenizer of a run, and a check for prompts that it cannot encode."""

import logging
from collections.abc import Sequence

from videodit_data.tokenizer import NoTokenizer, Tokenizer

from videodit.config.run import DiTRun, Run


def open_tokenizer(run: Run) -> Tokenizer | NoTokenizer:
    """Open the tokenizer of a run; an autoencoder reads no text.

    Raises:
        ValueError: when there is no such file, or the text encoder has fewer token ids than it makes.
    """
    if not isinstance(run, DiTRun):
        return NoTokenizer()
    tokenizer = Tokenizer(run.tokenizer)
    if tokenizer.size > run.text.vocab_size:
        raise ValueError(
            f"text.vocab_size is {run.text.vocab_size}, but {run.tokenizer} makes {tokenizer.size} token ids"
        )
    return tokenizer


def check_prompts(tokenizer: Tokenizer, prompts: Sequence[str], kind: str = "prompt") -> None:
    """Log a warning of prompts, or of parts of them, that the tokenizer has no tokens for.

    Args:
        kind: what messages call a prompt.

    Raises:
        ValueError: when it has no token for any part of a prompt that is not empty.
    """
    incomplete = {}
    for prompt in dict.fromkeys(prompts):
        unknown, has_known = tokenizer.find_unknown(prompt)
        if unknown and not has_known:
            raise ValueError(
                f"the tokenizer knows no part of the {kind} '{prompt}': write it in the language of the captions that "
                "the model was trained on"
            )
        if unknown:
            incomplete[prompt] = unknown
    for prompt, unknown in incomplete.items():
        parts = ", ".join(f"'{part}'" for part in unknown)
        logging.getLogger(__name__).warning("The tokenizer does not know %s of the %s '%s'.", parts, kind, prompt)
    if empty := sum(not prompt.strip() for prompt in prompts):
        which = "The prompt is empty: it" if len(prompts) == 1 else f"{empty} of {len(prompts)} prompts are empty: each"
        logging.getLogger(__name__).warning("%s is sampled as a clip without a caption.", which)
