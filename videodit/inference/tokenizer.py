"""The tokenizer of a run."""

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
