"""An HTML page of plans, with a bar of memory and a bar of time for each."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import jinja2

from videodit.checkpoint.atomic_write import write_text_atomically
from videodit.plan.plan_report import (
    CAUSES,
    GIB,
    MEMORY,
    SECONDS,
    Plan,
    describe_choices,
    describe_program,
    format_overrides,
)
from videodit.provenance import JSON

COLORS = "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#ff9da7", "#9c755f"


def write_page(path: Path, plans: Sequence[Plan]) -> None:
    """Write plans, in order, as one self-contained HTML file."""
    source = resources.files(__package__).joinpath("plan_page.html.jinja").read_text(encoding="utf-8")
    template = jinja2.Template(source, autoescape=True)
    first = plans[0]
    longest = max((plan.seconds["step_no_overlap"] for plan in plans if plan.seconds), default=0.0)
    capacity = first.hbm_bytes or max(plan.bytes_per_chip["total"] for plan in plans)
    page = template.render(
        title=describe_program(first),
        capacity=f"{capacity / GIB:.0f}",
        best=next((format_overrides(plan) for plan in plans if plan.fits), None),
        plans=[_build_section(plan, capacity, longest) for plan in plans],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, page)


def _build_section(plan: Plan, capacity: int, longest: float) -> dict[str, JSON]:
    sizes = plan.bytes_per_chip
    full_width = max(capacity, sizes["total"])
    bars = [_build_bar("memory", MEMORY, sizes, full_width, GIB, "GiB", sizes["total"])]
    if plan.seconds:
        labels, parts = (CAUSES, plan.causes) if plan.causes else (SECONDS, plan.seconds)
        bars.append(_build_bar("time", labels, parts, longest, 1.0, "s", plan.seconds["step_no_overlap"]))
    return {
        "choices": describe_choices(plan),
        "fits": plan.fits,
        "speed": _describe_speed(plan),
        "bars": bars,
        "overrides": format_overrides(plan),
    }


def _build_bar(
    name: str,
    labels: Mapping[str, str],
    sizes: Mapping[str, int | float],
    full_width: int | float,
    unit: int | float,
    unit_name: str,
    total: int | float,
) -> dict[str, JSON]:
    """Return a bar of parts by label; parts of less than 0.05% of the width are dropped."""
    parts = [
        {"name": label, "color": color, "width": f"{100 * size / full_width:.2f}", "size": f"{size / unit:.3g}"}
        for (key, label), color in zip(labels.items(), COLORS, strict=False)
        if (size := sizes.get(key, 0)) > 0.0005 * full_width
    ]
    return {"name": name, "parts": parts, "sum": f"{total / unit:.4g} {unit_name} in total"}


def _describe_speed(plan: Plan) -> str:
    if not plan.mfu:
        return ""
    low, high = (f"{plan.mfu[end]:.1%}" for end in ("no_overlap", "full_overlap"))
    return (
        f"MFU {low} without overlap to {high} with full overlap; "
        f"{plan.tokens_per_second_per_chip:.0f} tokens/s per chip without overlap"
    )
