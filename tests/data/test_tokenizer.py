import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from videodit_data.tokenizer import EOS, PAD, NoTokenizer, Tokenizer, clean_caption, train

CAPTIONS = [
    f"a {size} {color} {shape} moves {way}"
    for size in ("small", "large")
    for color in ("red", "green", "blue")
    for shape in ("circle", "square")
    for way in ("left", "right", "up", "down")
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train(CAPTIONS, 200))


def test_training_is_deterministic():
    assert train(CAPTIONS, 200) == train(iter(CAPTIONS), 200)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_texts_come_back(model_type: str):
    tokenizer = Tokenizer(train(CAPTIONS, 100, model_type=model_type))
    ids, mask = tokenizer.encode(CAPTIONS, 64)
    assert ids.dtype == np.int32 and ids.shape == mask.shape == (len(CAPTIONS), 64)
    assert tokenizer.decode(ids) == CAPTIONS
    assert ids.max() < tokenizer.size <= 100


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_what_has_no_token_is_found(model_type: str):
    tokenizer = Tokenizer(train(CAPTIONS, 100, model_type=model_type))
    assert all(tokenizer.find_unknown(caption) == ([], True) for caption in CAPTIONS)
    assert tokenizer.find_unknown("a 红色 circle 移动") == (["红色", "移动"], True)
    assert tokenizer.find_unknown("שלום עולם") == (["שלום", "עולם"], False)
    assert tokenizer.find_unknown("") == tokenizer.find_unknown("  ") == ([], False)


def test_every_text_ends_with_eos_and_is_padded(tokenizer: Tokenizer):
    ids, mask = tokenizer.encode([*CAPTIONS[:3], ""], 40)
    for row, real in zip(ids, mask, strict=True):
        length = int(real.sum())
        assert real[:length].all() and row[length - 1] == EOS
        assert (row[length:] == PAD).all() and not np.isin(row[: length - 1], (PAD, EOS)).any()
    assert mask[3].sum() == 1 and ids[3, 0] == EOS


def test_a_long_text_is_cut_before_its_eos_and_logged_once(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture):
    full_ids = tokenizer.encode(CAPTIONS[:1], 40)[0][0]
    with caplog.at_level(logging.WARNING):
        ids, mask = Tokenizer(tokenizer.model).encode([CAPTIONS[0]] * 2, 4)
    assert ids.tolist() == [[*full_ids[:3].tolist(), EOS]] * 2 and mask.all()
    assert len(caplog.records) == 1 and "cut to 4" in caplog.text


def test_models_travel_as_files_and_pickles(tokenizer: Tokenizer, tmp_path: Path):
    (tmp_path / "a.model").write_bytes(tokenizer.model)
    expected = tokenizer.encode(CAPTIONS, 16)[0]
    for other in (Tokenizer(tmp_path / "a.model"), pickle.loads(pickle.dumps(tokenizer))):
        assert np.array_equal(other.encode(CAPTIONS, 16)[0], expected)


def test_t5s_own_model_loads():
    model = Path(__file__).parents[3] / "shared" / "assets" / "tokenizers" / "t5_spiece.model"
    if not model.is_file():
        pytest.skip(f"T5's vocabulary is not at {model}")
    tokenizer = Tokenizer(model)
    ids, mask = tokenizer.encode(["a red square", ""], 8)
    assert tokenizer.size == 32000
    assert ids[0].tolist() == [3, 9, 1131, 2812, EOS, PAD, PAD, PAD]
    assert mask.sum(1).tolist() == [5, 1]


def test_what_is_no_model_says_so(tmp_path: Path):
    with pytest.raises(ValueError, match="Not a sentencepiece model: the given bytes"):
        Tokenizer(b"junk")
    with pytest.raises(ValueError, match="No tokenizer model at"):
        Tokenizer(tmp_path / "none.model")


def test_bad_requests_are_refused(tokenizer: Tokenizer):
    with pytest.raises(ValueError, match="without captions"):
        train(["", "  "])
    with pytest.raises(ValueError, match="bpe or unigram"):
        train(CAPTIONS, model_type="word")
    with pytest.raises(ValueError, match="room for at least its eos"):
        tokenizer.encode(["a"], 0)
    with pytest.raises(ValueError, match="tokenizer of 5 pieces has no room"):
        train(CAPTIONS, 5)


def test_without_a_tokenizer_every_caption_is_empty():
    ids, mask = NoTokenizer().encode(["a red circle", ""], 4)
    assert ids.tolist() == [[1, 0, 0, 0]] * 2
    assert mask.tolist() == [[True, False, False, False]] * 2


def test_captions_are_tidied_as_the_reference_does():
    # The steps of the reference by hand: mojibake and curly quotes mended, entities twice, spaces one.
    assert clean_caption("  a cafÃ©\n\tat  “night” ") == 'a café at "night"'
    assert clean_caption("salt &amp;amp; light &lt;b&gt;") == "salt & light <b>"
    assert clean_caption("") == "" and clean_caption("a red fox runs") == "a red fox runs"
