"""A store as a stream of blocks: one engine for backup, restore, and moving between homes.

    source.py   a store  ─▶ blocks ─▶  sink.py     a store
    files.py    a file   ─▶        ─▶  files.py    a file
                                   ─▶  compare.py  what two of them differ in

`blocks.py` is the pure format, `cut.py` says where a restore to an earlier moment stops, `in_hand.py` which
outbound messages were under way there. What an archive holds is what cannot be derived: the journal with the keys of its streams, the
claimed names, and the documents as they were. Views, snapshots and checkpoints are made again from the journal.
"""
