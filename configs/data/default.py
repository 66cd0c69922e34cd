"""Raw footage to training clips: shots of 2 to 10 seconds that move, are neither dark nor copies, and have captions.

Command:   videodit data build --input 'footage/**/*.mp4' --out data/clips --config configs/data/default.py
           videodit data report data/clips
Hardware:  CPU cores; on this machine a thread a core, elsewhere by Beam's options (-- --runner=DataflowRunner ...).
Result:    data/clips, of which every clip and file left out is in a table with its measure and threshold.

Variants:  default (drops what hardly anyone wants), strict (for models that should be sharp and lively), all (drops
           nothing but what cannot be read), whole (files that are clips already: not cut, not coded anew).
"""

from dataclasses import replace

from ml_collections import ConfigDict
from videodit_data.footage.analyse import AnalysisConfig
from videodit_data.footage.clips import ClipConfig
from videodit_data.footage.config import BuildConfig, CaptionConfig, DuplicateConfig, Filters
from videodit_data.footage.filters import Filter
from videodit_data.footage.shots import ShotConfig

from videodit.config.files import to_config_dict


def default() -> BuildConfig:
    """Dark, flat, barred, still and written-over clips and near-duplicates are dropped."""
    return BuildConfig(
        filters=Filters(
            luminance=Filter(least=0.03, most=0.95),
            contrast=Filter(least=0.03),
            bars=Filter(most=0.6),
            static=Filter(most=0.9, unknown="drop"),
            slideshow=Filter(most=0.5),
            motion=Filter(least=0.005),
            text=Filter(most=0.15),
        )
    )


def strict() -> BuildConfig:
    """More light, more motion, less text and no bars; nearer duplicates."""
    return replace(
        default(),
        filters=Filters(
            luminance=Filter(least=0.12, most=0.9),
            contrast=Filter(least=0.08),
            bars=Filter(most=0.05),
            static=Filter(most=0.5, unknown="drop"),
            slideshow=Filter(most=0.2),
            motion=Filter(least=0.02, most=2.0),
            sharpness=Filter(least=50.0),
            text=Filter(most=0.03),
        ),
        duplicates=DuplicateConfig(bits=12),
    )


def everything() -> BuildConfig:
    """All clips, with captions or without."""
    return BuildConfig(duplicates=DuplicateConfig(drop=False), captions=CaptionConfig(required=False))


def whole() -> BuildConfig:
    """Each file is one clip, as it is."""
    return replace(
        default(),
        analysis=AnalysisConfig(
            shots=ShotConfig(detector="none", fades=False), clips=ClipConfig(min_seconds=0.1, max_seconds=3600.0)
        ),
        recode=None,
    )


def get_config(variant: str = "default") -> ConfigDict:
    """The configuration."""
    variants = {"default": default, "strict": strict, "all": everything, "whole": whole}
    if variant not in variants:
        raise ValueError(f"configs/data/default.py has the variants {', '.join(variants)}, not '{variant}'")
    return to_config_dict(variants[variant]())
