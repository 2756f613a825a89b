"""What people ask about productions: queries that change nothing, for tables and displays.

Each query is read to its end at once, and what may be long is read piece by piece, so that managers
neither wait for a table nor it for them.
"""
