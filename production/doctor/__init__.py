"""``production doctor``: checks all that a group's set-up depends on and says what to do.

Like the manager it calls the rooms; nothing calls it but the command.  Every check gives findings
and changes nothing: scratch files, in a directory of the doctor's own, are removed at the end.
"""
