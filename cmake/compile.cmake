# SPDX-License-Identifier: MIT
# gw_compile(target): the language, warnings, visibility and sanitizers of everything built here.
set(GODWIT_WARNINGS -Wall -Wextra -Wshadow -Wpointer-arith -Wvla -Wundef -Wformat=2 -Wcast-qual
    -Wwrite-strings -Wno-missing-field-initializers)
set(GODWIT_WARNINGS_C -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition)

set(GODWIT_SANITIZE_FLAGS "")
if(GODWIT_SANITIZE)
  # A report ends the program, so that no test passes with one in its output.
  set(GODWIT_SANITIZE_FLAGS -fsanitize=${GODWIT_SANITIZE} -fno-sanitize-recover=all
      -fno-omit-frame-pointer)
  # Instrumentation hides initialisation from gcc: its guess is kept for the release build.
  list(APPEND GODWIT_WARNINGS -Wno-maybe-uninitialized)
  if(CMAKE_C_COMPILER_ID MATCHES Clang)
    list(APPEND GODWIT_WARNINGS -Wno-unknown-warning-option)
  endif()
endif()

add_library(gw_link_options INTERFACE)
add_library(gw::link_options ALIAS gw_link_options)
target_link_options(gw_link_options INTERFACE $<BUILD_INTERFACE:${GODWIT_SANITIZE_FLAGS}>)

function(gw_compile target)
  set_target_properties(${target} PROPERTIES
    C_STANDARD 17 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF
    CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF
    C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden
    POSITION_INDEPENDENT_CODE ON)
  # Written empty, so that a file which defines it for itself says the same thing.
  target_compile_definitions(${target} PRIVATE $<$<COMPILE_LANGUAGE:C>:_GNU_SOURCE=>)
  target_compile_options(${target} PRIVATE
    ${GODWIT_WARNINGS} $<$<COMPILE_LANGUAGE:C>:${GODWIT_WARNINGS_C}>
    ${GODWIT_SANITIZE_FLAGS} $<$<BOOL:${GODWIT_WERROR}>:-Werror>)
  target_include_directories(${target} PRIVATE
    ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include ${GODWIT_GENERATED})
endfunction()
