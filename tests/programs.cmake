# SPDX-License-Identifier: MIT
# tests/unit/<room>/*_test.c -> unit-<room>; tests/<label>/*.c -> <label>. Every googletest case is a
# test of ctest's, run in a process of its own.
find_package(GTest REQUIRED)
include(GoogleTest)

gw_room(gw_test_shim tests/support/*.c)
target_sources(gw_test_shim PRIVATE ${PROJECT_SOURCE_DIR}/tests/shim/gw_test_main.cc)
target_link_libraries(gw_test_shim PRIVATE GTest::gtest gw::jansson)

set(test_environment
    "ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:detect_leaks=1"
    "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/lsan.supp:print_suppressions=0"
    "UBSAN_OPTIONS=print_stacktrace=1"
    "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp"
    "GODWIT=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/godwit"
    "GODWIT_SOURCE=${PROJECT_SOURCE_DIR}")

# gcc 12's thread sanitizer cannot place its shadow where addresses are randomised further than this.
set(test_launcher "")
if(GODWIT_SANITIZE STREQUAL "thread")
  file(READ /proc/sys/vm/mmap_rnd_bits random_bits)
  if(random_bits GREATER 28)
    set(test_launcher setarch -R)
  endif()
endif()

# gw_test_program(name labels sources TIMEOUT s [GUESTS]); GUESTS: whole guests move, which takes processes,
# threads and clocks of their own. Those begin first, few at a time, and what is small fills the gaps. The label
# threads is for programs in which more than one runs: there is nothing in the others for the thread sanitizer.
function(gw_test_program name labels)
  cmake_parse_arguments(arg "GUESTS" "TIMEOUT" "SOURCES" ${ARGN})
  if(NOT arg_SOURCES)
    return()
  endif()
  add_executable(${name} ${arg_SOURCES} $<TARGET_OBJECTS:gw_test_shim>)
  gw_compile(${name})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX CROSSCOMPILING_EMULATOR "${test_launcher}")
  # tests/support/vendor*.c speaks to devices/vfio, the built-in guest has a disk of devices/virtio.
  target_link_libraries(${name} PRIVATE godwit_virtio godwit_vfio godwit_static gw::jansson GTest::gtest gw::link_options m)
  target_compile_definitions(${name} PRIVATE GW_TEST_GODWIT="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/godwit"
                                             GW_TEST_SOURCE="${PROJECT_SOURCE_DIR}")
  # DISABLED_ marks what only another test runs, by name (tests/unit/shim).
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 TEST_FILTER -DISABLED_*)

  # A list cannot be given to gtest_discover_tests as a property's value, so they are set after it.
  set(properties "LABELS \"${labels}\" TIMEOUT ${arg_TIMEOUT}")
  if(arg_GUESTS)
    string(APPEND properties " PROCESSORS 2 COST 10")
  endif()
  set(file ${CMAKE_CURRENT_BINARY_DIR}/${name}_properties.cmake)
  file(WRITE ${file}.new "if(${name}_TESTS)
  set_tests_properties(\${${name}_TESTS} PROPERTIES ${properties} ENVIRONMENT [==[${test_environment}]==])
endif()\n")
  file(COPY_FILE ${file}.new ${file} ONLY_IF_DIFFERENT)
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${file})
endfunction()

file(GLOB unit_rooms CONFIGURE_DEPENDS LIST_DIRECTORIES true ${CMAKE_CURRENT_SOURCE_DIR}/unit/*)
list(REMOVE_ITEM unit_rooms ${CMAKE_CURRENT_SOURCE_DIR}/unit/devices)
foreach(dir IN LISTS unit_rooms)
  cmake_path(GET dir FILENAME room)
  gw_glob(sources tests/unit/${room}/*_test.c tests/unit/${room}/*/*_test.c)
  set(labels unit)
  if(NOT room STREQUAL "control")
    list(APPEND labels threads)
  endif()
  gw_test_program(unit-${room} "${labels}" TIMEOUT 120 SOURCES ${sources})
endforeach()
if(TARGET unit-tools)
  target_sources(unit-tools PRIVATE $<TARGET_OBJECTS:gw_tools>)
endif()

# A device's tests are a program of its own: tests/unit/devices/<name>*_test.c -> unit-<name>.
foreach(device IN LISTS devices)
  gw_glob(sources tests/unit/devices/${device}*_test.c)
  gw_test_program(unit-${device} unit TIMEOUT 120 SOURCES ${sources})
  if(TARGET unit-${device})
    target_link_libraries(unit-${device} PRIVATE godwit_${device})
  endif()
endforeach()

foreach(label contract rules)
  gw_glob(sources tests/${label}/*.c)
  gw_test_program(${label} "${label};threads" TIMEOUT 300 SOURCES ${sources})
endforeach()
# Calls that tests/contract/rdma_calls.c lets fail.
if(TARGET contract AND GW_HAVE_RDMA)
  foreach(call ibv_get_device_list ibv_open_device ibv_query_device ibv_alloc_pd ibv_reg_mr_iova2
               ibv_create_comp_channel ibv_create_cq ibv_create_qp ibv_modify_qp
               rdma_create_event_channel rdma_create_id rdma_bind_addr rdma_listen
               rdma_resolve_addr rdma_resolve_route rdma_connect rdma_accept rdma_establish
               rdma_init_qp_attr rdma_migrate_id rdma_get_cm_event)
    target_link_options(contract PRIVATE LINKER:--wrap=${call})
  endforeach()
endif()
gw_glob(sources tests/e2e/*.c)
gw_test_program(e2e "e2e;threads" TIMEOUT 600 GUESTS SOURCES ${sources})
if(TARGET e2e AND TARGET godwit)
  target_sources(e2e PRIVATE $<TARGET_OBJECTS:gw_tools>)
  add_dependencies(e2e godwit)
endif()

# Streams that a stock QEMU writes while the test runs; skipped where there is none.
gw_glob(sources tests/qemu/*.c)
gw_test_program(qemu qemu TIMEOUT 300 GUESTS SOURCES ${sources})
if(TARGET qemu AND TARGET godwit)
  add_dependencies(qemu godwit)
endif()

# The library's calls on sockets go through the test, which lets some of them fail.
gw_glob(sources tests/calls/*.c)
gw_test_program(calls "e2e;threads" TIMEOUT 300 GUESTS SOURCES ${sources})
if(TARGET calls)
  foreach(call sendmsg recvmsg send recv ppoll epoll_wait accept4)
    target_link_options(calls PRIVATE LINKER:--wrap=${call})
  endforeach()
endif()
