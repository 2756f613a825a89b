"""Whether the files are what the bookkeeping says: looks at files, knows no database."""
