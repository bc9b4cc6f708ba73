// The eight behaviours by functions that a shim serves: async and async generator.
