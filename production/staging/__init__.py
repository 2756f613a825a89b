"""Bringing input files from the archive to the local disk: one module a protocol."""
