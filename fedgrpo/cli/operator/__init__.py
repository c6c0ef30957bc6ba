"""Commands of a federation's operator, on the server's machine."""
