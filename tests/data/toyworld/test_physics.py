"""Mechanics: what elastic collisions conserve, and paths that stay in the room."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videodit_data.toyworld.physics import Body, Orbit, simulate

ROOM = (1.5, 1.0)


def bodies_of(seed: int) -> list[Body]:
    rng = np.random.default_rng(seed)
    corners = [(x, y) for x in (0.25, 0.75, 1.25) for y in (0.25, 0.75)]
    bodies = []
    for corner in rng.permutation(corners)[: rng.integers(1, 5)]:
        reach, velocity = float(rng.uniform(0.05, 0.2)), rng.normal(size=2) * 1.5
        velocity = (float(velocity[0]), float(velocity[1]))
        bodies.append(
            Body((float(corner[0]), float(corner[1])), velocity, float(rng.uniform(0.5, 3)), reach, (reach,) * 4)
        )
    return bodies


def segments(paths, duration):
    """Yield each stretch of time without events: its start, its end and all velocities."""
    knots = sorted({time for path in paths for time in path.times} | {0.0, duration})
    for start, end in pairwise(knots):
        if end - start > 1e-6:
            moved = [path.at(np.array([start, end])) for path in paths]
            yield start, end, np.stack([(at[1] - at[0]) / (end - start) for at in moved])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_energy_is_conserved_and_momentum_in_collisions(seed):
    bodies = bodies_of(seed)
    mass = np.array([body.mass for body in bodies])
    paths, events = simulate(bodies, ROOM, 2.0)
    flights = list(segments(paths, 2.0))
    energy = [0.5 * (mass * (speed**2).sum(axis=-1)).sum() for _, _, speed in flights]
    np.testing.assert_allclose(energy, energy[0], rtol=1e-4)
    for (_, end, before), (start, _, after) in pairwise(flights):
        met = [event for event in events if end - 1e-9 <= event.time <= start + 1e-9]
        if met and all(event.kind == "collision" for event in met):
            np.testing.assert_allclose(mass @ before, mass @ after, atol=1e-4 * np.abs(mass @ np.abs(before)).max())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_nothing_leaves_the_room_or_passes_through_another(seed):
    bodies = bodies_of(seed)
    paths, _ = simulate(bodies, ROOM, 2.0)
    at = np.stack([path.at(np.linspace(0, 2, 200)) for path in paths])
    for index, body in enumerate(bodies):
        assert (at[index] >= body.reach - 1e-6).all()
        assert (at[index] <= np.array(ROOM) - body.reach + 1e-6).all()
        for other in range(index):
            distance = np.linalg.norm(at[index] - at[other], axis=-1)
            assert distance.min() >= body.reach + bodies[other].reach - 1e-6


def test_equal_masses_head_on_exchange_velocities():
    one = Body((0.3, 0.5), (0.4, 0.0), 1.0, 0.1, (0.1,) * 4)
    two = Body((0.9, 0.5), (-0.2, 0.0), 1.0, 0.1, (0.1,) * 4)
    (left, right), (event,) = simulate([one, two], ROOM)
    assert (event.kind, event.objects) == ("collision", (0, 1))
    assert event.time == pytest.approx(0.4 / 0.6)
    assert left.at(np.array([1.0]))[0, 0] == pytest.approx(0.3 + 0.4 * event.time - 0.2 * (1 - event.time))
    assert right.at(np.array([1.0]))[0, 0] == pytest.approx(0.9 - 0.2 * event.time + 0.4 * (1 - event.time))
    assert one.position == (0.3, 0.5)


def test_an_orbit_runs_clockwise_on_the_screen():
    at = Orbit((0.0, 0.0), 1.0, -math.pi / 2, 2 * math.pi).at(np.array([0.0, 0.25, 0.5]))
    np.testing.assert_allclose(at, [[0, -1], [1, 0], [0, 1]], atol=1e-12)
