# SPDX-License-Identifier: MIT
# Each check of the lint is a test over the tree, and a test that breaks what it checks.
# scripts/try builds where there is no python3; where tests are built it must be there.
if(GODWIT_TESTS)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
else()
  find_package(Python3 QUIET COMPONENTS Interpreter)
endif()
if(NOT Python3_FOUND)
  return()
endif()

foreach(check includes symbols prefix exports spdx space names format)
  add_test(NAME lint.${check}
    COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/lint.py ${check}
            --root ${PROJECT_SOURCE_DIR} --build ${PROJECT_BINARY_DIR})
  add_test(NAME lint.${check}_finds_what_is_broken
    COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/selftest.py ${check})
  set_tests_properties(lint.${check} lint.${check}_finds_what_is_broken PROPERTIES LABELS lint TIMEOUT 120)
endforeach()
add_test(NAME lint.api COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/api.py --root ${PROJECT_SOURCE_DIR})
add_test(NAME lint.api_finds_what_is_broken
  COMMAND Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/api_selftest.py)
set_tests_properties(lint.api lint.api_finds_what_is_broken PROPERTIES LABELS lint TIMEOUT 120)
# What the simulator is woken up with (tests/sim/bugs.py) names lines of the code.
add_test(NAME lint.bugs_fit_the_code COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tests/sim/bugs.py --check)
set_tests_properties(lint.bugs_fit_the_code PROPERTIES LABELS lint TIMEOUT 30)
include(${CMAKE_CURRENT_LIST_DIR}/tidy.cmake)
