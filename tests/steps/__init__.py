"""The life of one run, disturbed at each of its steps."""
