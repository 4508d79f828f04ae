"""How the program runs: compiled kernels, work ahead in threads, files written whole, caches, remote files."""
