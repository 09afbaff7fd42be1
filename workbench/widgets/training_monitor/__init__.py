"""The training monitor. `monitor` is what people call; it knows a run by its verbs, its states and its history.

Behind it `curves` draws loss and gradients, which is what takes time, and `telling` puts numbers into words and bars.
"""

from workbench.widgets.training_monitor.monitor import TrainingMonitor

__all__ = ["TrainingMonitor"]
