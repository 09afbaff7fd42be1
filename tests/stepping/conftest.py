"""No notices from the libraries."""

import pytest

from workbench.diffusion.libraries import quiet


@pytest.fixture(autouse=True)
def quietly():
    with quiet():
        yield
