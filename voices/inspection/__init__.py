"""The program that decodes and measures uploads, in a process of its own. Imports no Django, and nothing imports it but
`voices.intake`, which talks to it over a socket and itself loads only `limits`, `report` and `wire`.
"""
