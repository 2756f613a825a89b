"""Real network filesystems on this machine, good ones and bad ones, in a second and as root."""
