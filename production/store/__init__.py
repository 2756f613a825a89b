"""The shared SQLite file: the only memory that managers have in common.

``connection`` opens it and makes transactions, ``migrations`` creates it and brings it up to
date, ``datasets``, ``productions`` and ``legacy`` fill it, ``runs`` is what a manager does to
its runs, ``managers`` tells the living from the dead.

For the bookkeeper: ``choice`` is which runs are meant, ``history``, ``trace``, ``recorded`` and
``export`` read, ``interventions`` and ``holdings`` send runs back and take them back, ``backup``
and ``text`` make copies, ``vacuum`` gives space back.
"""
