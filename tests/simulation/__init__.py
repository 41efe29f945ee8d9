"""A whole hub in virtual time: a directory, nodes with shards, gateways, a store, providers, agents and customers from one seed.

`loop.py` is the time, `network.py` what the processes' own wire runs over, `faults.py` the store that fails, `cluster.py` the
processes that die, `gateway.py`, `people.py`, `streams.py` and `provider.py` whoever talks to the hub, `nemesis.py` whoever breaks
it, `history.py` what was said, `world.py` one run of it all, `exam.py` what is measured when all is well again, and `checkers.py` what
must hold afterwards. A seed fully determines a run.

    python -m tests.simulation --seed 17 --trace
    python -m tests.simulation --seeds 2000 --jobs 2
"""
