# That kernels which spill or need a stack frame do not compile with our flags, and others do.
# Run as: cmake -DNVCC=... -DFLAGS="..." -DSOURCES=<this folder> -DSCRATCH=... -P spills_test.cmake
separate_arguments(FLAGS)

# The last output of nvcc on one planted source, and its exit status.
macro(compile name)
  execute_process(COMMAND ${NVCC} -std=c++20 -O3 ${FLAGS} -arch=sm_90 -c ${SOURCES}/${name}.cu
    -o ${SCRATCH}/${name}.o RESULT_VARIABLE status ERROR_VARIABLE output OUTPUT_VARIABLE output)
endmacro()

compile(clean)
if(NOT status EQUAL 0)
  message(SEND_ERROR "a clean kernel is refused: ${output}")
endif()
compile(spills)
if(status EQUAL 0 OR NOT output MATCHES "Registers are spilled")
  message(SEND_ERROR "a spilling kernel compiles (${status}): ${output}")
endif()
compile(stack_frame)
if(status EQUAL 0 OR NOT output MATCHES "Local memory used")
  message(SEND_ERROR "a kernel with a stack frame compiles (${status}): ${output}")
endif()
