"""How the admin's pages write dates and times, per language."""
