"""The embedded home: SQLite, two files. `hub.db` must never be lost; `views.db` can be rebuilt from it."""
