"""Commands of `hub` beside `serve`, one file for each group: on a running hub (`running.py`), and on its store."""
