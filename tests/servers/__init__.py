"""Real servers that tests start for themselves, each on a free port, each a process of its own."""
