"""Why runs do not go on: facts are gathered, causes found in them, and told with their remedy.

Like the doctor it calls the rooms, and nothing calls it but its command.
"""
