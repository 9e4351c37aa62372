"""Alembic: one linear history, on PostgreSQL and SQLite."""
