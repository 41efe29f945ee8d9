"""The PostgreSQL home: one database, schema `hub` that must never be lost, and views that can be rebuilt from it."""
