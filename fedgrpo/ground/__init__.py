"""What every room stands on and that knows no other: errors, files, keys, registries, folders."""
