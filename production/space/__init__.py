"""How full the filesystem is: one module a command that knows."""
