"""The toyworld oracle: checks which statements of a caption hold for a clip, in numpy."""

from videodit.evals.toyworld.judge import Sighting, adherence, observe, verify
from videodit.evals.toyworld.world import Statement, Verdict, World

__all__ = ["Sighting", "Statement", "Verdict", "World", "adherence", "observe", "verify"]
