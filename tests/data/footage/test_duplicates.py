import random

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from videodit_data.captions import Captions
from videodit_data.footage.candidates import Candidate, Spot
from videodit_data.footage.duplicates import DropDuplicates
from videodit_data.footage.spec import Clip


def candidate(name: str, hashes: tuple[int, ...], height: int = 64) -> Candidate:
    spot = Spot(f"{name}#0-9", name, name, name, 0, 9)
    return Candidate(spot, Clip(0, 9, 0.0, {}, hashes), 8.0, height, 96, 9, Captions(()))


def near(hashes: tuple[int, ...], bits: int, rng: random.Random) -> tuple[int, ...]:
    """The same but for so many bits of each hash."""
    return tuple(h ^ sum(1 << at for at in rng.sample(range(64), bits)) for h in hashes)


def outcome(candidates: list[Candidate], **options) -> tuple[list[str], dict[str, str], int]:
    """Ids that passed, of each that was dropped the one that it repeats, and the crowded ones."""
    found: tuple[list[str], dict[str, str], list[int]] = [], {}, []
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        made = pipeline | beam.Create(candidates) | DropDuplicates(**{"bits": 8, **options})
        made["passed"] | "a" >> beam.Map(lambda c: found[0].append(c.id))
        made["dropped"] | "b" >> beam.Map(lambda f: found[1].update({f.decision.clip: f.decision.duplicate_of}))
        made["crowded"] | "c" >> beam.Map(found[2].append)
    return sorted(found[0]), found[1], sum(found[2])


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_copies_are_found_and_only_those_whatever_the_order(seed: int):
    rng = random.Random(seed)
    originals = [candidate(f"o{n}", tuple(rng.getrandbits(64) for _ in range(8)), 128) for n in range(40)]
    copies = [candidate(f"c{n}", near(originals[n].clip.fingerprint, 3, rng)) for n in range(10)]
    others = [candidate(f"d{n}", near(originals[n].clip.fingerprint, 16, rng)) for n in range(10)]
    everything = originals + copies + others
    rng.shuffle(everything)
    passed, dropped, crowded = outcome(everything)
    assert dropped == {f"c{n}#0-9": f"o{n}#0-9" for n in range(10)}
    assert passed == sorted(each.id for each in originals + others) and crowded == 0


def test_more_pixels_stay_then_the_first_id():
    hashes = tuple(range(8))
    same = [candidate("b", hashes, 64), candidate("a", hashes, 64), candidate("z", hashes, 96)]
    passed, dropped, _ = outcome(same)
    assert passed == ["z#0-9"] and dropped == {"a#0-9": "z#0-9", "b#0-9": "z#0-9"}


def test_a_crowd_is_compared_with_its_first_ones_only_and_that_is_counted():
    crowd = [candidate(f"{n:03d}", (7,) * 8) for n in range(50)]
    passed, dropped, crowded = outcome(crowd, most=4)
    assert passed == ["000#0-9"] and set(dropped.values()) == {"000#0-9"}
    assert crowded == 46 * 32  # under each of the bands


def test_the_distance_and_its_threshold_are_told():
    rng = random.Random(3)
    pair = [candidate("a", (5,) * 8), candidate("b", near((5,) * 8, 2, rng))]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        made = pipeline | beam.Create(pair) | DropDuplicates(8)
        told = made["dropped"] | beam.Map(lambda f: (f.decision.measure, f.decision.value, f.decision.threshold))
        assert_that(told, equal_to([("distance", 2.0, 8)]))
