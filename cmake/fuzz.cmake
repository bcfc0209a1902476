# SPDX-License-Identifier: MIT
# Fuzz targets: tests/fuzz/<name>_fuzz.c -> fuzz-<name>, one program each. With GODWIT_FUZZ (preset
# fuzz, clang) libFuzzer drives it; without, tests/fuzz/corpus_main.c runs the corpus through it once, as
# the test fuzz.<name>. fuzz-seeds writes the real messages that the corpora began with.
option(GODWIT_FUZZ "let libFuzzer drive the fuzz targets (needs clang)" OFF)
if(GODWIT_FUZZ AND NOT CMAKE_C_COMPILER_ID MATCHES Clang)
  message(FATAL_ERROR "GODWIT_FUZZ needs clang: cmake --preset fuzz")
endif()

gw_glob(fuzz_sources tests/fuzz/*_fuzz.c)
foreach(source IN LISTS fuzz_sources)
  cmake_path(GET source STEM name)
  string(REGEX REPLACE "_fuzz$" "" name ${name})
  add_executable(fuzz-${name} ${source})
  gw_compile(fuzz-${name})
  if(TARGET godwit_${name}) # a device's
    target_link_libraries(fuzz-${name} PRIVATE godwit_${name})
  endif()
  target_link_libraries(fuzz-${name} PRIVATE godwit_static gw::link_options)
  if(GODWIT_FUZZ)
    target_link_options(fuzz-${name} PRIVATE -fsanitize=fuzzer)
    set(run_once -runs=0)
  else()
    target_sources(fuzz-${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus_main.c)
  endif()
  add_test(NAME fuzz.${name}
    COMMAND fuzz-${name} ${run_once} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
  set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT 120)
endforeach()

# Descriptions made up from a seed, and the simulated vendor device, are shared with the unit tests; the
# rest of tests/support is not linked.
gw_glob(vmstate_random tests/support/vmstate_random*.c)
target_sources(fuzz-vmstate PRIVATE ${vmstate_random})
gw_glob(vendor tests/support/vendor*.c)
target_sources(fuzz-vfio PRIVATE ${vendor})

gw_glob(seeds tests/fuzz/seeds*.c)
add_executable(fuzz-seeds ${seeds})
gw_compile(fuzz-seeds)
target_link_libraries(fuzz-seeds PRIVATE godwit_virtio godwit_static gw::link_options)
