"""PostgreSQL and Redis from pip packages, for a machine that has neither. See README.md beside this file."""
