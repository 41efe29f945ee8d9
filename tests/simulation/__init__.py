"""A whole hub in virtual time: shards, store, providers, agents and customers from one seed.

`loop.py` is the time, `faults.py` the store that fails, `cluster.py` the processes that die, `people.py`,
`provider.py` and `gateway.py` whoever talks to the hub, `history.py` what they were told, `world.py` one run
of it all, and `checkers.py` what must hold afterwards. A seed fully determines a run.

    python -m tests.simulation --seed 17 --trace
    python -m tests.simulation --seeds 2000 --jobs 2
"""
