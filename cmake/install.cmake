# SPDX-License-Identifier: MIT
# cmake --install: headers, both libraries, godwit.pc, a CMake package, the command, documents.
install(DIRECTORY include/godwit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.h)
install(TARGETS godwit_shared EXPORT godwit LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
# The archive is for pkg-config --static users: CMake's package offers the shared library only.
install(TARGETS godwit_static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET godwit)
  install(TARGETS godwit RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

install(EXPORT godwit NAMESPACE godwit:: FILE godwit-targets.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/godwit)
configure_package_config_file(cmake/godwit-config.cmake.in ${GODWIT_GENERATED}/godwit-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/godwit)
write_basic_package_version_file(${GODWIT_GENERATED}/godwit-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${GODWIT_GENERATED}/godwit-config.cmake ${GODWIT_GENERATED}/godwit-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/godwit)

# godwit.pc finds its prefix from its own place, so an installed tree can be moved.
file(RELATIVE_PATH GODWIT_PC_PREFIX
     ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" GODWIT_PC_PREFIX "${GODWIT_PC_PREFIX}")
configure_file(cmake/godwit.pc.in ${GODWIT_GENERATED}/godwit.pc @ONLY)
install(FILES ${GODWIT_GENERATED}/godwit.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# Documents keep the shape of the tree, so that the links in them hold.
install(FILES LICENSE README.md SECURITY.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR}
        FILES_MATCHING PATTERN *.md PATTERN man EXCLUDE)
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR})
gw_glob(man_pages docs/man/*.1)
install(FILES ${man_pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
