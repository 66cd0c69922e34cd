"""Toyworld: captioned clips of moving shapes with exact ground truth, deterministic, at any size and length."""

from videodit_data.toyworld.build import build
from videodit_data.toyworld.captions import parse
from videodit_data.toyworld.clip import Clip, Format, clips, make_clip
from videodit_data.toyworld.statements import KINDS, Statement, holds
from videodit_data.toyworld.world import LEVELS, world

__all__ = ["KINDS", "LEVELS", "Clip", "Format", "Statement", "build", "clips", "holds", "make_clip", "parse", "world"]
