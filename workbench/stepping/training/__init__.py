"""The debugger for training: `TrainingRun` and what it keeps.

run: moving about. branching: another future. update: one step of the optimiser. state: what is to see. memory:
snapshots. norms: sizes of layers and updates. views: series and curves. file: a run on disk.
"""

from workbench.stepping.training.run import TrainingRun
from workbench.stepping.training.state import TrainingSettings, TrainingState

__all__ = ["TrainingRun", "TrainingSettings", "TrainingState"]
