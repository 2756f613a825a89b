"""Telling people who do not look: when a notice is due, and the ways that it can go."""
