# The shims of adapters/ travel inside the program (shim_files.c).
set(AMESH_ADAPTERS_DIR ${CMAKE_SOURCE_DIR}/adapters)
set_source_files_properties(sidecar/shim_files.c PROPERTIES
  COMPILE_DEFINITIONS "AMESH_ADAPTERS_DIR=\"${AMESH_ADAPTERS_DIR}\""
  OBJECT_DEPENDS "${AMESH_ADAPTERS_DIR}/python/amesh_shim.py;${AMESH_ADAPTERS_DIR}/python/amesh.py;${AMESH_ADAPTERS_DIR}/js/amesh_shim.mjs")
