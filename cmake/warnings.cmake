# One place for the language and the warnings. `amesh_options` is linked by every target of ours.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
# Asserts state what the program relies on; they stay in release builds.
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELEASE "${CMAKE_C_FLAGS_RELEASE}")
string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELWITHDEBINFO "${CMAKE_C_FLAGS_RELWITHDEBINFO}")

add_library(amesh_options INTERFACE)
target_compile_definitions(amesh_options INTERFACE _GNU_SOURCE)
# -Wno-unused-result: clang keeps watch over ignored results, and takes "(void)" for an answer; gcc does not.
target_compile_options(amesh_options INTERFACE
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef
  -Wwrite-strings -Wimplicit-fallthrough -Wformat=2 -Wno-unused-parameter -Wno-unused-result
  # uthash's macros fall through by design, which gcc knows how to see; clang does not
  $<$<C_COMPILER_ID:Clang>:-Wno-implicit-fallthrough> $<$<C_COMPILER_ID:Clang>:-Wno-string-concatenation>
  -fstack-protector-strong -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
if(AMESH_HOOKS)
  target_compile_definitions(amesh_options INTERFACE AMESH_HOOKS)
endif()
if(AMESH_WERROR)
  target_compile_options(amesh_options INTERFACE -Werror)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT AMESH_SANITIZE)
  target_compile_options(amesh_options INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-clash-protection -fcf-protection)
  target_link_options(amesh_options INTERFACE -Wl,-z,relro -Wl,-z,now)
endif()
