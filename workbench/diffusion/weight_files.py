"""Reads published files of weights without executing anything in them."""

import pickle
import re
from pathlib import Path

import torch
from safetensors.torch import load_file

from workbench import check


def read_weights(file):
    """What a file of weights holds: tensors by name as a rule, perhaps with dictionaries of them inside.

    Args:
        file: ``.safetensors``, or any other ending for a torch file, read by PyTorch's restricted reader.

    Raises:
        NotAvailable: no such file, damaged, or holding more than tensors and plain values.

    Example:
        >>> sorted(read_weights("vgg19.pth"))[0]
        'classifier.0.bias'
    """
    file = Path(file)
    if not file.is_file():
        raise check.NotAvailable(f"{file} is not a file, expected a checkpoint: put the published one there.")
    try:
        return load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        held = re.search(r"GLOBAL (\S+)|Unsupported class (\S+)", str(error))  # what it would have had to call
        if held:
            raise check.NotAvailable(
                f"{file} holds more than tensors and is not read: it cannot be read as weights without executing "
                f"something ({held[1] or held[2]}). Save its state dict as safetensors where you trust it."
            ) from None
        reason = "damaged, or no file of weights"  # PyTorch's own words advise to execute what is in it
    except Exception as error:  # PyTorch's reader meets damaged bytes with errors of many kinds
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
    raise check.NotAvailable(f"{file} is not readable as weights: {reason.rstrip('.')}. Get it anew.")
