# SPDX-License-Identifier: MIT
# scripts/soft-roce: what it promises, each by machines of its own. They skip where a package of
# scripts/packages-rig is missing.
if(NOT GODWIT_TESTS)
  return()
endif()
add_executable(rig-kvm rig/rig_kvm.c)
gw_compile(rig-kvm)
target_link_libraries(rig-kvm PRIVATE gw::link_options)
foreach(part refuses_what_cannot_work command_runs_as_here two_hosts_meet unprivileged_user
             two_rigs_at_once_and_a_signal doctor_finds_and_mends)
  add_test(NAME rig.${part}
    COMMAND bash ${CMAKE_CURRENT_LIST_DIR}/check.sh ${part} ${PROJECT_SOURCE_DIR} ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
  set_tests_properties(rig.${part} PROPERTIES LABELS rig TIMEOUT 600 PROCESSORS 2 SKIP_RETURN_CODE 77)
endforeach()
