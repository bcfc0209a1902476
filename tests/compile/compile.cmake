# SPDX-License-Identifier: MIT
# What the compiler must refuse: tests/compile/<name>.txt, by the compiler of the build and by clang.
set(compile_compilers ${CMAKE_C_COMPILER})
find_program(CLANG clang)
if(CLANG AND NOT CMAKE_C_COMPILER_ID MATCHES Clang)
  list(APPEND compile_compilers ${CLANG})
endif()
gw_glob(compile_lists tests/compile/*.txt)
foreach(list IN LISTS compile_lists)
  cmake_path(GET list STEM name)
  foreach(compiler IN LISTS compile_compilers)
    cmake_path(GET compiler FILENAME compiler_name)
    add_test(NAME compile.${name}_${compiler_name}
      COMMAND bash ${PROJECT_SOURCE_DIR}/tests/compile/check.sh ${compiler} ${PROJECT_SOURCE_DIR} ${name})
    set_tests_properties(compile.${name}_${compiler_name} PROPERTIES LABELS compile TIMEOUT 300)
  endforeach()
endforeach()
