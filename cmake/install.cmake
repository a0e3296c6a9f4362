# What `cmake --install` puts where. All paths inside the prefix are relative, so the installed tree
# may be moved.
include(CMakePackageConfigHelpers)

install(TARGETS serry serry_static EXPORT serryTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/serry DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    FILES_MATCHING PATTERN "*.h")
install(DIRECTORY ${serry_man_dir}/man3 DESTINATION ${CMAKE_INSTALL_MANDIR}
    FILES_MATCHING PATTERN "*.3")
foreach(section 1 7)
    install(DIRECTORY docs/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section}
        FILES_MATCHING PATTERN "*.${section}")
endforeach()

# For find_package(serry).
set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/serry)
configure_package_config_file(cmake/serryConfig.cmake.in serryConfig.cmake
    INSTALL_DESTINATION ${config_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(serryConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT serryTargets NAMESPACE serry:: DESTINATION ${config_dir})
install(FILES
    ${PROJECT_BINARY_DIR}/serryConfig.cmake
    ${PROJECT_BINARY_DIR}/serryConfigVersion.cmake
    DESTINATION ${config_dir})

# For pkg-config.
file(RELATIVE_PATH pc_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
file(RELATIVE_PATH pc_libdir ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH pc_includedir ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
configure_file(cmake/serry.pc.in serry.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/serry.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
