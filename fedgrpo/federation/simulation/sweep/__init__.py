"""Many runs of one scenario: changes by seeds, side by side, into one table."""
