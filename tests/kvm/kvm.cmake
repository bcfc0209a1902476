# SPDX-License-Identifier: MIT
# examples/kvm: godwit-kvm between processes, and its dirty tracking against a comparison of memory. What
# e2e asks of the command when hosts die or stand still (faults_test.c), it asks of this one as well.
if(NOT TARGET godwit-kvm)
  return()
endif()
gw_glob(sources tests/kvm/*.c)
add_executable(kvm ${sources} $<TARGET_OBJECTS:gw_kvm> ${PROJECT_SOURCE_DIR}/tests/e2e/scene.c
               ${PROJECT_SOURCE_DIR}/tests/e2e/faults_test.c $<TARGET_OBJECTS:gw_test_shim>)
gw_compile(kvm)
set_target_properties(kvm PROPERTIES LINKER_LANGUAGE CXX
  CROSSCOMPILING_EMULATOR "${CMAKE_CURRENT_LIST_DIR}/with_kvm.sh;${test_launcher}")
get_target_property(shim_libraries unit-shim LINK_LIBRARIES)
target_link_libraries(kvm PRIVATE ${shim_libraries})
target_compile_definitions(kvm PRIVATE
  GW_TEST_GODWIT="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/godwit-kvm" GW_TEST_SOURCE="${PROJECT_SOURCE_DIR}")
add_dependencies(kvm godwit-kvm)
gtest_discover_tests(kvm DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 TEST_PREFIX kvm. TEST_LIST kvm_TESTS)
set(kvm_environment ${test_environment})
list(FILTER kvm_environment EXCLUDE REGEX "^GODWIT=")
list(APPEND kvm_environment "GODWIT=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/godwit-kvm")
set(file ${CMAKE_CURRENT_BINARY_DIR}/kvm_properties.cmake)
file(WRITE ${file}.new "if(kvm_TESTS)
  set_tests_properties(\${kvm_TESTS} PROPERTIES LABELS kvm TIMEOUT 600 PROCESSORS 2 COST 10 SKIP_RETURN_CODE 77
                       ENVIRONMENT [==[${kvm_environment}]==])
endif()\n")
file(COPY_FILE ${file}.new ${file} ONLY_IF_DIFFERENT)
set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${file})

add_test(NAME kvm.embedding_is_small
  COMMAND sh ${PROJECT_SOURCE_DIR}/examples/kvm/count.sh ${PROJECT_SOURCE_DIR}/examples/kvm)
set_tests_properties(kvm.embedding_is_small PROPERTIES LABELS lint TIMEOUT 30)
