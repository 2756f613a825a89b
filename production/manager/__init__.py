"""The corridor: what moves a run from its claim to its recorded outputs, and the way back.

``loop`` is the event loop and owns all state; ``intake`` brings runs and their input here,
``jobs`` submits and watches, ``recovery`` rolls back and repairs.  ``settle`` handles files
beside the loop, in ``lanes``.  ``work`` is one run on its way, ``plan`` what its job is told,
``paths`` every file name.
"""
