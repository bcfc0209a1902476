# SPDX-License-Identifier: MIT
# perf/<name>.c becomes perf-<name>, with perf/bench.c in each. gw_commit.h says which commit was
# measured; it is looked up by every build and written only when it changed.
add_custom_target(gw_commit
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DOUTPUT=${GODWIT_GENERATED}/gw_commit.h
          -P ${PROJECT_SOURCE_DIR}/cmake/commit.cmake
  BYPRODUCTS ${GODWIT_GENERATED}/gw_commit.h
  COMMENT "" VERBATIM)

set(bench_helper ${PROJECT_SOURCE_DIR}/perf/bench.c)
gw_glob(perf_sources perf/*.c)
if(EXISTS ${bench_helper})
  list(REMOVE_ITEM perf_sources ${bench_helper})
  add_library(gw_bench OBJECT ${bench_helper})
  gw_compile(gw_bench)
  add_dependencies(gw_bench gw_commit)
endif()

foreach(source IN LISTS perf_sources)
  cmake_path(GET source STEM name)
  string(REGEX REPLACE "^bench_" "" name ${name})
  add_executable(perf-${name} ${source})
  gw_compile(perf-${name})
  add_dependencies(perf-${name} gw_commit)
  if(TARGET gw_bench)
    target_sources(perf-${name} PRIVATE $<TARGET_OBJECTS:gw_bench>)
  endif()
  if(name STREQUAL guest) # it measures a part of the command, not of the library
    gw_glob(guest_sources tools/guest*.c tools/cgroup.c)
    target_sources(perf-guest PRIVATE ${guest_sources})
    target_link_libraries(perf-guest PRIVATE godwit_virtio)
  endif()
  if(name STREQUAL migrate AND TARGET godwit) # it runs the command that lies beside it
    add_dependencies(perf-migrate godwit)
  endif()
  target_link_libraries(perf-${name} PRIVATE godwit_static gw::jansson gw::link_options m)
  # Run once, so that none rots: no speed is judged, and none means anything under sanitizers.
  if(NOT GODWIT_SANITIZE)
    add_test(NAME perf.${name} COMMAND perf-${name} --smoke)
    set_tests_properties(perf.${name} PROPERTIES LABELS perf TIMEOUT 120 RUN_SERIAL TRUE SKIP_RETURN_CODE 77)
  endif()
endforeach()
