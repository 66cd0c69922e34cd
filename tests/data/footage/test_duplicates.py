import random

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from videodit_data.caption_files import Captions
from videodit_data.footage import fingerprint
from videodit_data.footage.analysis_result import Clip
from videodit_data.footage.candidates import Candidate, Spot
from videodit_data.footage.duplicates import DropDuplicates


def candidate(name: str, hashes: tuple[int, ...], height: int = 64) -> Candidate:
    spot = Spot(f"{name}#0-9", name, name, name, 0, 9)
    return Candidate(spot, Clip(0, 9, 0.0, {}, hashes), 8.0, height, 96, 9, Captions(()))


def flip_bits(hashes: tuple[int, ...], bits: int, rng: random.Random) -> tuple[int, ...]:
    """Return the hashes with so many bits of each flipped."""
    return tuple(h ^ sum(1 << at for at in rng.sample(range(64), bits)) for h in hashes)


def check(
    candidates: list[Candidate], passed: list[str], dropped: dict[str, str], crowded: int = 0, **options: int
) -> None:
    """Check the names that pass, the dropped names with the one that each repeats, and the number of crowded clips."""
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        outputs = pipeline | beam.Create(candidates) | DropDuplicates(**{"bits": 8, **options})
        pairs = outputs["dropped"] | beam.Map(lambda fate: (fate.decision.source, fate.decision.duplicate_of[:-4]))
        far = outputs["dropped"] | beam.Filter(lambda fate: not fate.decision.value <= fate.decision.threshold == 8)
        assert_that(far, equal_to([]), label="distances")
        assert_that(outputs["passed"] | beam.Map(lambda each: each.id[:-4]), equal_to(passed), label="passed")
        assert_that(pairs, equal_to(dropped.items()), label="dropped")
        assert_that(outputs["crowded"] | beam.CombineGlobally(sum), equal_to([crowded]), label="crowded")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_planted_copies_are_found_and_only_those_whatever_the_order(seed: int):
    rng = random.Random(seed)
    originals = [candidate(f"o{n}", tuple(rng.getrandbits(64) for _ in range(8)), 128) for n in range(40)]
    copies = [candidate(f"c{n}", flip_bits(originals[n].clip.fingerprint, 3, rng)) for n in range(10)]
    others = [candidate(f"d{n}", flip_bits(originals[n].clip.fingerprint, 16, rng)) for n in range(10)]
    # More pixels stay, then the first id.
    same = tuple(range(8))
    equal = [candidate("b", same, 64), candidate("a", same, 64), candidate("z", same, 96)]
    # A crowd is compared with its first ones only, which is counted.
    crowd = [candidate(f"e{n}", (2**40 - 1,) * 8) for n in range(10)]
    bands = len(fingerprint.bands((0,) * 8))
    everything = originals + copies + others + equal + crowd
    rng.shuffle(everything)
    passed = [*(each.spot.name for each in originals + others), "z", "e0"]
    dropped = {f"c{n}": f"o{n}" for n in range(10)} | {f"e{n}": "e0" for n in range(1, 10)} | {"a": "z", "b": "z"}
    check(everything, passed, dropped, crowded=6 * bands, most=4)
