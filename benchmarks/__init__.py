"""Speed, measured side by side in one run; each program prints a table and its machine."""

import glscl_jax  # noqa: F401  Before any other library: it keeps their order (import_order).
