// Serves one JavaScript function as an agent: amesh_shim.mjs FILE.mjs[:NAME]. Speaks spec/local-api.md 2–4 on AMESH_FD or AMESH_SOCK.
