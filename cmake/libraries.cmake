# The libraries that are installed, made of the layers of CMakeLists.txt. cake_libraries() is called after them.
#
#   libdatacake-crdt    base hlc crdt          the set alone: needs nothing but libc
#   libdatacake         everything up to store, and uv
#   libdatacake-sqlite  sqlite                 needs libdatacake
#   libdatacake-lmdb    lmdb                   needs libdatacake
#   libdatacake-sim     sim simenv             needs libdatacake and libdatacake-sqlite
#
# Each is a shared library (SONAME, version script cmake/exports.map: only cake_* leaves it, never cake__*), a static
# one, a pkg-config file and a component of the CMake package. A library whose layers have no sources is left out.
#
# Who links what: installed programs link these libraries. What is built in this tree (apps, tests, benchmarks, examples,
# fuzz targets) links cake_all, the static layers themselves: internals can be tested, and nothing has to be installed to
# run. scripts/check builds examples/hello.c against the installed libraries, so that both ways stay proven.
#
# A library that needs libdatacake carries its own copy of the internal cake__* code that it uses, hidden. That is sound
# because no layer has mutable globals (scripts/tidy holds it).

set(CAKE_ABI 0) # raise when a public symbol or struct changes in a way that breaks programs built before

# cake_library(NAME LAYERS layer... [CORE] [DESCRIPTION text] [LINKS target...] [PKG module...] [SYSTEM library...])
#   CORE     needs libdatacake
#   LINKS    libraries of other projects, for the shared library; for static linking the same again:
#            PKG as pkg-config modules, SYSTEM as linker names
function(cake_library name)
  cmake_parse_arguments(ARG "CORE" "DESCRIPTION" "LAYERS;PKG;LINKS;SYSTEM" ${ARGN})
  foreach(layer ${ARG_LAYERS})
    get_target_property(type cake_${layer} TYPE)
    if(type STREQUAL "INTERFACE_LIBRARY")
      message(STATUS "no ${name}: layer ${layer} has no sources")
      return()
    endif()
    list(APPEND objects $<TARGET_OBJECTS:cake_${layer}>)
  endforeach()
  if(ARG_CORE AND NOT TARGET libdatacake)
    message(STATUS "no ${name}: no datacake")
    return()
  endif()
  string(REGEX REPLACE "^datacake-?" "" component ${name})
  if(NOT component)
    set(component core)
  endif()

  set(map ${PROJECT_SOURCE_DIR}/cmake/exports.map)
  add_library(lib${name} SHARED ${objects})
  add_library(lib${name}-static STATIC ${objects})
  set_target_properties(lib${name} PROPERTIES OUTPUT_NAME ${name} EXPORT_NAME ${component}
    VERSION ${PROJECT_VERSION} SOVERSION ${CAKE_ABI} LINK_DEPENDS ${map} INSTALL_RPATH "$ORIGIN" LINKER_LANGUAGE C)
  set_target_properties(lib${name}-static PROPERTIES OUTPUT_NAME ${name} EXPORT_NAME ${component}-static LINKER_LANGUAGE C)
  target_link_options(lib${name} PRIVATE -Wl,--version-script=${map} -Wl,--exclude-libs,ALL -Wl,-z,defs)
  target_link_libraries(lib${name} PRIVATE ${ARG_LINKS})
  if(ARG_CORE)
    # libdatacake first: its public symbols are taken from there, the hidden ones from the archives.
    target_link_libraries(lib${name} PUBLIC libdatacake)
    foreach(layer ${ARG_LAYERS})
      target_link_libraries(lib${name} PRIVATE $<TARGET_PROPERTY:cake_${layer},INTERFACE_LINK_LIBRARIES>)
    endforeach()
    target_link_libraries(lib${name}-static INTERFACE libdatacake-static)
  endif()
  foreach(system ${ARG_SYSTEM})
    target_link_libraries(lib${name}-static INTERFACE $<INSTALL_INTERFACE:${system}>)
  endforeach()
  foreach(target lib${name} lib${name}-static)
    target_include_directories(${target} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  endforeach()

  set(CAKE_PC_NAME ${name})
  file(RELATIVE_PATH CAKE_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /) # so that an installed tree can be moved
  set(CAKE_PC_DESCRIPTION ${ARG_DESCRIPTION})
  if(ARG_CORE)
    set(CAKE_PC_REQUIRES "datacake = ${PROJECT_VERSION}")
  endif()
  list(JOIN ARG_PKG ", " CAKE_PC_REQUIRES_PRIVATE)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/library.pc.in ${PROJECT_BINARY_DIR}/pkgconfig/${name}.pc @ONLY)

  install(TARGETS lib${name} lib${name}-static EXPORT datacake-${component}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT datacake-${component} NAMESPACE datacake:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/datacake)
  install(FILES ${PROJECT_BINARY_DIR}/pkgconfig/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

# Everything that has sources, for what is built in this tree. CAKE_MISSING: the layers that have none.
function(cake_everything)
  add_library(cake_all INTERFACE)
  add_custom_target(layers)
  foreach(layer ${CAKE_LAYERS})
    get_target_property(type cake_${layer} TYPE)
    if(type STREQUAL "INTERFACE_LIBRARY")
      list(APPEND missing ${layer})
    endif()
    target_link_libraries(cake_all INTERFACE cake_${layer})
    add_dependencies(layers cake_${layer})
  endforeach()
  set(CAKE_MISSING "${missing}" CACHE INTERNAL "layers without sources")
endfunction()

function(cake_libraries)
  cake_everything()
  if(CAKE_SANITIZE OR CAKE_COVERAGE)
    return() # instrumented builds are for tests, which link the layers
  endif()

  cake_library(datacake-crdt LAYERS base hlc crdt
    DESCRIPTION "Hybrid logical clock and replicated set of Datacake, alone")
  cake_library(datacake LAYERS base hlc crdt env view rpc gossip storage node store uv
    DESCRIPTION "Eventually consistent distributed systems: membership, RPC and replicated keyspaces"
    LINKS PkgConfig::UV PkgConfig::NGHTTP2 PkgConfig::OPENSSL PkgConfig::ZSTD PkgConfig::XXHASH
    PKG libuv libnghttp2 openssl libzstd libxxhash SYSTEM uv nghttp2 ssl crypto zstd xxhash pthread)
  cake_library(datacake-sqlite CORE LAYERS sqlite DESCRIPTION "SQLite storage of Datacake" PKG sqlite3 SYSTEM sqlite3)
  cake_library(datacake-lmdb CORE LAYERS lmdb DESCRIPTION "LMDB storage of Datacake" PKG lmdb SYSTEM lmdb)
  cake_library(datacake-sim CORE LAYERS sim simenv DESCRIPTION "Deterministic simulator of Datacake clusters"
    LINKS libdatacake-sqlite PkgConfig::SQLITE PKG datacake-sqlite sqlite3 SYSTEM sqlite3)
  target_link_libraries(libdatacake-sim-static INTERFACE libdatacake-sqlite-static)

  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/datacake DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    FILES_MATCHING PATTERN "*.h")
  include(CMakePackageConfigHelpers)
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/package.cmake.in ${PROJECT_BINARY_DIR}/datacakeConfig.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/datacake)
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/datacakeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/datacakeConfig.cmake ${PROJECT_BINARY_DIR}/datacakeConfigVersion.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/datacake)
endfunction()
