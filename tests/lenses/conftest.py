"""As in the tests of stepping: one thread, and no notices from the libraries."""

from tests.stepping.conftest import one_thread  # noqa: F401
