"""What a job is given, what it leaves behind, and what that means.

The other half is sge_scripts/job.sh, which runs on the node.  ``orders`` writes what it reads,
``record`` reads what it wrote, ``verdict`` says it in words, ``fence`` makes sure that an attempt
runs once or not at all, ``clean`` clears away.
"""
