"""Speed, measured side by side in one run; each program prints a table and its machine."""
