"""The kill campaign: managers on two hosts, and everything that may happen to them, by chance.

``torment`` happens on each host: it starts managers, kills and stops them, and starts others.
``journal`` is what each manager writes down about itself for the campaign.  ``site`` is the
production that they work on.  ``verdict`` says what must hold in the end.
"""
