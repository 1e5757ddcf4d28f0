"""Listening by machine: how close the parametric engine comes to a reference voice, and what it costs in words."""
