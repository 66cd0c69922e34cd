"""Plans as a page: a bar of memory and a bar of time for each."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from videodit.plan.plan_report import CAUSES, GIB, MEMORY, SECONDS, Plan, choices, overrides, title

COLOURS = "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#ff9da7", "#9c755f"


def write_page(path: Path, plans: Sequence[Plan]) -> None:
    """Writes one HTML file that needs nothing else; plans in the order in which they are given."""
    template = jinja2.Template(resources.files(__package__).joinpath("page.html.jinja").read_text(), autoescape=True)
    first = plans[0]
    longest = max((plan.seconds["step_no_overlap"] for plan in plans if plan.seconds), default=0.0)
    room = first.hbm_bytes or max(plan.bytes_per_chip["total"] for plan in plans)
    page = template.render(
        title=title(first),
        room=f"{room / GIB:.0f}",
        best=next((overrides(plan) for plan in plans if plan.fits), None),
        plans=[_shown(plan, room, longest) for plan in plans],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _shown(plan: Plan, room: int, longest: float) -> dict[str, Any]:
    sizes = plan.bytes_per_chip
    whole = max(room, sizes["total"])
    bars = [_bar("memory", MEMORY, sizes, whole, GIB, "GiB", sizes["total"])]
    if plan.seconds:
        labels, parts = (CAUSES, plan.causes) if plan.causes else (SECONDS, plan.seconds)
        bars.append(_bar("time", labels, parts, longest, 1.0, "s", plan.seconds["step_no_overlap"]))
    return {
        "choices": choices(plan),
        "fits": plan.fits,
        "speed": _speed(plan),
        "bars": bars,
        "overrides": overrides(plan),
    }


def _bar(
    name: str,
    labels: Mapping[str, str],
    sizes: Mapping[str, int | float],
    whole: int | float,
    unit: int | float,
    sign: str,
    total: int | float,
) -> dict[str, Any]:
    shown: Iterable[tuple[str, str]] = zip(labels.items(), COLOURS, strict=False)
    parts = [
        {"name": label, "colour": colour, "width": f"{100 * size / whole:.2f}", "size": f"{size / unit:.3g}"}
        for (key, label), colour in shown
        if (size := sizes.get(key, 0)) > 0.0005 * whole
    ]
    return {"name": name, "parts": parts, "sum": f"{total / unit:.4g} {sign} in all"}


def _speed(plan: Plan) -> str:
    if not plan.mfu:
        return ""
    low, high = (f"{plan.mfu[end]:.1%}" for end in ("no_overlap", "full_overlap"))
    return (
        f"MFU {low} with nothing overlapping to {high} with everything; "
        f"{plan.tokens_per_second_per_chip:.0f} tokens a second and chip"
    )
