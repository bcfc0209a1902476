# SPDX-License-Identifier: MIT
# What a user finds after `cmake --install`: not under sanitizers, which a user's program has not.
if(NOT GODWIT_SANITIZE)
  foreach(part tree links exports headers embed_shared embed_static cmake_package)
    add_test(NAME install.${part}
      COMMAND bash ${CMAKE_CURRENT_LIST_DIR}/check.sh ${part} ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
    set_tests_properties(install.${part} PROPERTIES LABELS install TIMEOUT 120
      ENVIRONMENT "CC=${CMAKE_C_COMPILER};LIBDIR=${CMAKE_INSTALL_LIBDIR}" FIXTURES_REQUIRED installed)
  endforeach()
  set_tests_properties(install.tree PROPERTIES FIXTURES_REQUIRED "" FIXTURES_SETUP installed)
endif()
