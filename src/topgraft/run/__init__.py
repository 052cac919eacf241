"""A run: a folder with the choices, the numbers and the predictor, and what is written into it."""

from topgraft.run.metrics import Metrics
from topgraft.run.run import AGAIN, LIBRARIES, MARK, Run, versions, what_is_there

__all__ = ["AGAIN", "LIBRARIES", "MARK", "Metrics", "Run", "versions", "what_is_there"]
