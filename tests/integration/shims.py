"""The in-process shims against the far end of a socketpair: every promise of local-api.md 2–4 that a shim makes."""
