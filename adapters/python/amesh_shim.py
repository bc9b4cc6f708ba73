"""Serves one Python object as an agent: amesh_shim.py FILE.py[:OBJECT]. Speaks spec/local-api.md 2–4 on AMESH_FD or AMESH_SOCK."""
