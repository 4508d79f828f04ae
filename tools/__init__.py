"""Commands: parse arguments, call the library, print."""
