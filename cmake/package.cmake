# What `cmake --install` and `cpack` ship: the program with its data (component runtime), and the
# headers, libraries and CMake package of model/ and calibrate/ (component development). Kernels are
# not installed: nothing that is installed links them, and whoever links model/ alone should not
# need Highway, OpenMP and OpenBLAS. The day calibrate/ links them, CMake refuses this file until
# they are a component of their own.
if(TARGET kvfathom)
  install(TARGETS kvfathom COMPONENT runtime)
endif()
if(TARGET kvfathom-calibrate) # apart: it needs OpenBLAS and OpenMP, which `kvfathom` does not
  install(TARGETS kvfathom-calibrate COMPONENT calibrate)
endif()
install(DIRECTORY data/ DESTINATION ${CMAKE_INSTALL_DATADIR}/kvfathom COMPONENT runtime)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)

install(TARGETS kvfathom_model kvfathom_calibrate EXPORT kvfathom
  ARCHIVE COMPONENT development
  FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/kvfathom COMPONENT development)
install(EXPORT kvfathom FILE kvfathom-config.cmake NAMESPACE kvfathom::
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvfathom COMPONENT development)
include(CMakePackageConfigHelpers)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/kvfathom-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kvfathom-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvfathom COMPONENT development)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "kvfathom maintainers")
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL runtime development)
if(TARGET kvfathom-calibrate)
  list(APPEND CPACK_COMPONENTS_ALL calibrate)
  set(CPACK_DEBIAN_CALIBRATE_PACKAGE_NAME kvfathom-calibrate)
  set(CPACK_DEBIAN_CALIBRATE_PACKAGE_SHLIBDEPS ON)
endif()
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME kvfathom)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libkvfathom-dev)
include(CPack)
