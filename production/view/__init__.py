"""What people see: messages, progress, tables, the curses display."""
