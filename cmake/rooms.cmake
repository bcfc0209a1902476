# SPDX-License-Identifier: MIT
# gw_room(name pattern... [EXCLUDE file...]): an object library of one room of the tree.
# Includes are written from the root of the tree; tests/lint says which of them a room may follow.
set(GODWIT_EMPTY ${GODWIT_GENERATED}/empty.c)
file(CONFIGURE OUTPUT ${GODWIT_EMPTY} CONTENT "extern int gw_room_is_empty;\n")

# gw_glob(out pattern...): sources of the tree by pattern, looked up again by every build.
function(gw_glob out)
  list(TRANSFORM ARGN PREPEND ${PROJECT_SOURCE_DIR}/)
  file(GLOB found CONFIGURE_DEPENDS ${ARGN})
  set(${out} ${found} PARENT_SCOPE)
endfunction()

function(gw_room name)
  cmake_parse_arguments(arg "" "" "EXCLUDE" ${ARGN})
  gw_glob(sources ${arg_UNPARSED_ARGUMENTS})
  foreach(file IN LISTS arg_EXCLUDE)
    list(REMOVE_ITEM sources ${PROJECT_SOURCE_DIR}/${file})
  endforeach()
  if(NOT sources)
    set(sources ${GODWIT_EMPTY})
  endif()
  add_library(${name} OBJECT ${sources})
  gw_compile(${name})
endfunction()
