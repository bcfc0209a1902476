# SPDX-License-Identifier: MIT
# sim: whole migrations in virtual time (tests/sim/main.c). How many seeds a test runs is boxed by a processor's time: a
# sanitized build runs few; scripts/check lets the release build run 100,000.
gw_glob(sim_sources tests/sim/*.c)
add_executable(sim ${sim_sources})
gw_compile(sim)
target_link_libraries(sim PRIVATE godwit_static gw::jansson gw::link_options m)
set(sim_seconds 20)
if(NOT GODWIT_SANITIZE)
  set(sim_seconds 300)
endif()
add_test(NAME sim.every_seed_holds
  COMMAND ${test_launcher} $<TARGET_FILE:sim> --count 100000 --seconds ${sim_seconds} --jobs 2)
set_tests_properties(sim.every_seed_holds PROPERTIES LABELS sim TIMEOUT 1500 PROCESSORS 2)
