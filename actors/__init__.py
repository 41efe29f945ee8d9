"""The actors and what runs them.

`conversation.py`, `customer.py`, `tenant.py` decide and apply, purely. `activation.py`, `partition.py`,
`commit.py`, `timers.py`, `host.py` and `readers/` run them without knowing of Ray. `shard.py`,
`directory.py`, `router.py` and `supervisor.py` are the thin shells that do.
"""
