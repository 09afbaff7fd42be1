"""The machinery of a denoising run: one paused call of a pipeline (execution) on twins of its parts (twins).

Around the call: its surroundings (ambient), what is drawn in it (draws), its arguments and pictures (calls). In a step:
what is kept (moment), the scheduler's numbers (solving, prediction), the denoiser's answers (guidance). For later:
digests and copies (structure), where records are kept (memory), going over to another scheduler (switching).
"""
