# The man pages of the functions, made from the docstrings of the public headers. A function that
# has none fails the build.
find_program(SERRY_AWK NAMES awk mawk gawk REQUIRED)
set(serry_man_dir ${PROJECT_BINARY_DIR}/man)
set(scripts ${PROJECT_SOURCE_DIR}/scripts/man)
file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/serry/*.h)
list(REMOVE_ITEM headers ${PROJECT_SOURCE_DIR}/include/serry/serry.h)
list(PREPEND headers ${PROJECT_SOURCE_DIR}/include/serry/serry.h) # listed first in serry.3

add_custom_command(OUTPUT ${serry_man_dir}/made
    COMMAND ${CMAKE_COMMAND} -E rm -rf ${serry_man_dir}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${serry_man_dir}/man3
    COMMAND ${SERRY_AWK} -v version=${PROJECT_VERSION} -v out=${serry_man_dir}/man3
        -f ${scripts}/troff.awk -f ${scripts}/headers.awk -f ${scripts}/pages.awk ${headers}
    COMMAND ${CMAKE_COMMAND} -E touch ${serry_man_dir}/made
    DEPENDS ${scripts}/troff.awk ${scripts}/headers.awk ${scripts}/pages.awk ${headers}
    COMMENT "Making man pages from the headers"
    VERBATIM)
add_custom_target(serry_man ALL DEPENDS ${serry_man_dir}/made)
