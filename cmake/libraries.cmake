function(cake_libraries)
endfunction()
