# SPDX-License-Identifier: MIT
# The handover's table, model-checked: 4 links that break, 5 reconnections, either side dies and comes
# back. The model reads core/handover.def, so its transitions and the code's are one set.
add_test(NAME model.handover_happens_exactly_once
  COMMAND ${CMAKE_CURRENT_LIST_DIR}/check.sh ${PROJECT_SOURCE_DIR} -DBREAKS=4 -DCONNS=6 -DCRASHES)
add_test(NAME model.broken_handovers_are_caught
  COMMAND ${CMAKE_CURRENT_LIST_DIR}/broken.sh ${PROJECT_SOURCE_DIR})
set_tests_properties(model.handover_happens_exactly_once model.broken_handovers_are_caught PROPERTIES
  LABELS model TIMEOUT 600 SKIP_RETURN_CODE 77)
