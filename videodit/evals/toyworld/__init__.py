"""The toyworld oracle: reads a clip in plain numpy and says which statements of its caption hold."""

from videodit.evals.toyworld.judge import Sighting, adherence, observe, verify
from videodit.evals.toyworld.world import Statement, Verdict, World

__all__ = ["Sighting", "Statement", "Verdict", "World", "adherence", "observe", "verify"]
