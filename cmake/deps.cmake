# Every dependency is a Debian 12 package, found by pkg-config. (docs/operations.md lists the packages)
find_package(PkgConfig REQUIRED)
foreach(dep IN ITEMS
    "nats libnats" "protobufc libprotobuf-c" "sodium libsodium" "cjson libcjson" "curl libcurl"
    "event libevent_core" "event_extra libevent_extra" "event_pthreads libevent_pthreads"
    "sqlite sqlite3" "yaml yaml-0.1")
  separate_arguments(pair UNIX_COMMAND "${dep}")
  list(GET pair 0 name)
  list(GET pair 1 module)
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${module})
endforeach()
find_path(UTHASH_INCLUDE uthash.h REQUIRED)
find_package(Threads REQUIRED)
if(AMESH_TESTS)
  pkg_check_modules(cmocka REQUIRED IMPORTED_TARGET cmocka)
endif()
