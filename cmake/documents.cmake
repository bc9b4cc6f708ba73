# What the program says of itself (one option table) becomes files: the manual page and the completions. And how other CMake projects find us.
set(documents ${CMAKE_BINARY_DIR}/documents)
set(outputs)
function(amesh_document file)
  add_custom_command(OUTPUT ${documents}/${file} COMMAND amesh ${ARGN} > ${documents}/${file} DEPENDS amesh VERBATIM)
  set(outputs ${outputs} ${documents}/${file} PARENT_SCOPE)
endfunction()
file(MAKE_DIRECTORY ${documents})
amesh_document(amesh.1 man)
amesh_document(amesh.bash completion bash)
amesh_document(_amesh completion zsh)
amesh_document(amesh.fish completion fish)
add_custom_target(documents ALL DEPENDS ${outputs})

install(FILES ${documents}/amesh.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${documents}/amesh.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME amesh)
install(FILES ${documents}/_amesh DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${documents}/amesh.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

include(CMakePackageConfigHelpers)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/amesh-config.cmake.in ${CMAKE_BINARY_DIR}/amesh-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/amesh PATH_VARS CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/amesh-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/amesh-config.cmake ${CMAKE_BINARY_DIR}/amesh-config-version.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/amesh)
