# The random-schedule checker, twice: against the layer as it is, and against a copy of it with the mutants compiled in.
file(GLOB model CONFIGURE_DEPENDS ${dir}/model/*.c)
set(layer ${sources})
add_executable(crdt-schedule ${model})
target_link_libraries(crdt-schedule PRIVATE cake_crdt)
add_executable(crdt-mutants ${model} ${layer})
target_compile_definitions(crdt-mutants PRIVATE CAKE_MUTANTS)
target_link_libraries(crdt-mutants PRIVATE cake_hlc cake_base)
add_test(NAME crdt-schedule COMMAND crdt-schedule)
set_tests_properties(crdt-schedule PROPERTIES TIMEOUT 1200 LABELS unit)
add_test(NAME crdt-mutants COMMAND crdt-mutants) # what a mutant leaves in the middle of something is leaked on purpose
set_tests_properties(crdt-mutants PROPERTIES TIMEOUT 1200 LABELS "unit;no-asan;no-tsan")
