# spec/amp.proto → amp/amp.pb-c.h, amp.pb-c.c; spec/codes.def → amp/codes.def beside it, so that <amp/…> finds both.
find_program(PROTOC_C protoc-c REQUIRED)
set(AMP_GENERATED ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${AMP_GENERATED}/amp)
add_custom_command(
  OUTPUT ${AMP_GENERATED}/amp/amp.pb-c.c ${AMP_GENERATED}/amp/amp.pb-c.h
  COMMAND ${PROTOC_C} --c_out=${AMP_GENERATED}/amp -I${CMAKE_SOURCE_DIR}/spec ${CMAKE_SOURCE_DIR}/spec/amp.proto
  DEPENDS ${CMAKE_SOURCE_DIR}/spec/amp.proto VERBATIM)
add_custom_command(
  OUTPUT ${AMP_GENERATED}/amp/codes.def
  COMMAND ${CMAKE_COMMAND} -E copy_if_different ${CMAKE_SOURCE_DIR}/spec/codes.def ${AMP_GENERATED}/amp/codes.def
  DEPENDS ${CMAKE_SOURCE_DIR}/spec/codes.def VERBATIM)
add_custom_target(amp_generated DEPENDS ${AMP_GENERATED}/amp/amp.pb-c.h ${AMP_GENERATED}/amp/codes.def)
