"""Support for running the program: kernel compilation, prefetching, atomic writes, cache folders, remote files."""
