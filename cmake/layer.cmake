# cake_layer(NAME [FOLDER dir] [HEADERS name...] [USES layer...] [LINKS library...] [TESTS_USE layer...])
#
# Makes the static library cake_NAME of src/FOLDER/**/*.c, and one test program NAME-FILE per FILE_test.c there.
# USES names the layers it may include, HEADERS its headers in include/datacake (NAME.h by default): scripts/tidy reads
# the same rows and holds every #include against them.

set(CAKE_LAYERS "" CACHE INTERNAL "every layer, bottom up")

add_library(cake_flags INTERFACE)
target_include_directories(cake_flags INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
target_compile_definitions(cake_flags INTERFACE _GNU_SOURCE CAKE_VERSION="${PROJECT_VERSION}")
target_compile_options(cake_flags INTERFACE -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes
  -Wpointer-arith -Wcast-qual -Wwrite-strings -Wundef -Wvla -Wno-unused-parameter -fno-strict-aliasing)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  # It warns of each cut that could be, also where the length is looked at, as it is everywhere here.
  target_compile_options(cake_flags INTERFACE -Wno-format-truncation)
endif()
if(CAKE_WERROR)
  target_compile_options(cake_flags INTERFACE -Werror)
endif()
if(CAKE_SANITIZE)
  add_compile_options(-fsanitize=${CAKE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${CAKE_SANITIZE})
endif()
if(CAKE_COVERAGE)
  add_compile_options(--coverage -O0)
  add_link_options(--coverage)
endif()

# cake_add_test(PROGRAM SOURCE LABEL): a line of SOURCE such as
#   /* ctest: no-tsan serial: why */
# says what scripts/check and ctest need to know: no-asan, no-tsan (left out of that run), serial (nothing beside it),
# slow (up to 20 minutes instead of 10, as under sanitizers).
# What takes half a minute here may take ten times that on a busy machine; a test that hangs says where, by scripts/limit.
function(cake_add_test test source label)
  file(STRINGS ${source} marks REGEX "ctest: ")
  string(REGEX REPLACE ".*ctest: ([^:]*):.*" "\\1" marks "${marks}")
  string(REPLACE " " ";" marks "${marks}")
  set(limit 600)
  if(slow IN_LIST marks OR CAKE_SANITIZE)
    set(limit 1200)
  endif()
  add_test(NAME ${test} COMMAND ${PROJECT_SOURCE_DIR}/scripts/limit ${limit} $<TARGET_FILE:${test}>)
  set_tests_properties(${test} PROPERTIES TIMEOUT 1500 LABELS "${label};${marks}")
  if(serial IN_LIST marks)
    set_tests_properties(${test} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

function(cake_layer name)
  cmake_parse_arguments(ARG "" "FOLDER" "HEADERS;USES;LINKS;TESTS_USE" ${ARGN})
  if(NOT ARG_FOLDER)
    set(ARG_FOLDER ${name})
  endif()
  set(dir ${PROJECT_SOURCE_DIR}/src/${ARG_FOLDER})
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.c ${dir}/h2/*.c ${dir}/sessions/*.c)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.c$")
  list(FILTER tests INCLUDE REGEX "_test\\.c$")

  if(sources)
    add_library(cake_${name} STATIC ${sources})
    target_link_libraries(cake_${name} PUBLIC cake_flags ${ARG_LINKS})
  else()
    add_library(cake_${name} INTERFACE)
    target_link_libraries(cake_${name} INTERFACE cake_flags ${ARG_LINKS})
  endif()
  foreach(used ${ARG_USES})
    if(sources)
      target_link_libraries(cake_${name} PUBLIC cake_${used})
    else()
      target_link_libraries(cake_${name} INTERFACE cake_${used})
    endif()
  endforeach()
  set(CAKE_LAYERS ${CAKE_LAYERS} ${name} CACHE INTERNAL "every layer, bottom up")

  if(NOT BUILD_TESTING OR NOT CMOCKA_FOUND)
    return()
  endif()
  foreach(source ${tests})
    get_filename_component(stem ${source} NAME_WE)
    string(REPLACE "_test" "" stem ${stem})
    set(test ${name}-${stem})
    add_executable(${test} ${source})
    target_link_libraries(${test} PRIVATE cake_${name} PkgConfig::CMOCKA)
    foreach(used ${ARG_TESTS_USE})
      target_link_libraries(${test} PRIVATE cake_${used})
    endforeach()
    cake_add_test(${test} ${source} unit)
  endforeach()
  if(EXISTS ${dir}/tests.cmake) # tests that need more than one source
    include(${dir}/tests.cmake)
  endif()
endfunction()
