"""One thread, and no notices from the libraries: these networks are tiny."""

import pytest
import torch

from workbench.diffusion.libraries import quiet


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with quiet():
        yield
    torch.set_num_threads(threads)
