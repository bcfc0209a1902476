# SPDX-License-Identifier: MIT
# clang-tidy over the library's and the command's sources: a test of its own, with a label of its own,
# because it takes as long as all other tests.
find_program(RUN_CLANG_TIDY NAMES run-clang-tidy run-clang-tidy-14)
if(RUN_CLANG_TIDY)
  add_test(NAME tidy.clang_tidy_is_silent
    COMMAND bash ${CMAKE_CURRENT_LIST_DIR}/tidy.sh ${RUN_CLANG_TIDY} ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  set_tests_properties(tidy.clang_tidy_is_silent PROPERTIES LABELS tidy TIMEOUT 1800 RUN_SERIAL TRUE)
endif()
