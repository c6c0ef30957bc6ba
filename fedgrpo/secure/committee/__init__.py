"""A committee of four data holders that aggregates shares and opens the result alone."""
