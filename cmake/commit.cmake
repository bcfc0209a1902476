# SPDX-License-Identifier: MIT
# cmake -DSOURCE=tree -DOUTPUT=header -P commit.cmake
set(commit unknown)
execute_process(COMMAND git describe --always --dirty --abbrev=12 WORKING_DIRECTORY ${SOURCE}
                OUTPUT_VARIABLE out OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE rc)
if(rc EQUAL 0 AND out)
  set(commit ${out})
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define GW_COMMIT \"@commit@\"\n" @ONLY)
