"""As in the tests of stepping: no notices from the libraries."""

from tests.stepping.conftest import quietly  # noqa: F401
