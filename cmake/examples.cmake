# SPDX-License-Identifier: MIT
# examples/kvm: godwit-kvm, a client of the public headers, and its guest programs: freestanding, linked to
# run where the machine's ROM is, and put into the program as they are. x86-64 only.
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$" OR NOT CMAKE_OBJCOPY)
  return()
endif()
set(guest_dir ${PROJECT_SOURCE_DIR}/examples/kvm/guest)
# No red zone, as interrupts use the stack; nothing of a hosted program; no vector registers but by name.
set(guest_options -std=gnu17 -O2 -g0 -m64 -march=x86-64 -mno-red-zone -mgeneral-regs-only -mcmodel=small
    -ffreestanding -fno-pic -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables
    -fcf-protection=none -fno-sanitize=all -Wall -Wextra -Wshadow -Wmissing-prototypes
    $<$<BOOL:${GODWIT_WERROR}>:-Werror>)
foreach(program writer ticker diskuser)
  add_executable(kvm-guest-${program} ${guest_dir}/guest_runtime.c ${guest_dir}/guest_${program}.c)
  set_target_properties(kvm-guest-${program} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${GODWIT_GENERATED} POSITION_INDEPENDENT_CODE OFF
    LINK_DEPENDS ${guest_dir}/guest.ld)
  target_compile_options(kvm-guest-${program} PRIVATE ${guest_options})
  target_include_directories(kvm-guest-${program} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_options(kvm-guest-${program} PRIVATE -nostdlib -static -no-pie
    LINKER:--build-id=none LINKER:-T,${guest_dir}/guest.ld)
  add_custom_command(OUTPUT ${GODWIT_GENERATED}/kvm-${program}.bin
    COMMAND ${CMAKE_OBJCOPY} -O binary -j .text $<TARGET_FILE:kvm-guest-${program}>
            ${GODWIT_GENERATED}/kvm-${program}.bin
    DEPENDS kvm-guest-${program} VERBATIM)
endforeach()

# All but main() is apart, so that tests can link it.
gw_room(gw_kvm examples/kvm/kvm_*.c)
set(programs "")
set(program_paths "")
foreach(program WRITER TICKER DISKUSER)
  string(TOLOWER ${program} name)
  list(APPEND programs ${GODWIT_GENERATED}/kvm-${name}.bin)
  list(APPEND program_paths "VMM_GUEST_${program}=\"${GODWIT_GENERATED}/kvm-${name}.bin\"")
endforeach()
set_source_files_properties(${PROJECT_SOURCE_DIR}/examples/kvm/kvm_boot.c PROPERTIES
  OBJECT_DEPENDS "${programs}" COMPILE_DEFINITIONS "${program_paths}")
add_executable(godwit-kvm examples/kvm/kvm.c $<TARGET_OBJECTS:gw_kvm>)
gw_compile(godwit-kvm)
target_link_libraries(godwit-kvm PRIVATE godwit_virtio godwit_static gw::link_options Threads::Threads m)
