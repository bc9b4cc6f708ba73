"""The eight behaviours by functions that a shim serves: sync, async, generator, async generator."""
