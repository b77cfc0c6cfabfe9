# CUDA is used when it is there and never required. Found: on. Not found, or too old for C++20:
# off, with a message. Asked for and not found: an error, not a quiet CPU build.
#
# A configuration that says KVFATHOM_CUDA=OFF (every preset but gpu) never looks for a compiler.
#
# CMAKE_CUDA_ARCHITECTURES: every generation by default, and PTX of the newest two for those to
# come. A build for one machine is faster with -DCMAKE_CUDA_ARCHITECTURES=90, say.
set(KVFATHOM_CUDA_MINIMUM 12.0)

if(NOT DEFINED KVFATHOM_CUDA OR KVFATHOM_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  set(nvcc_version 0)
  if(CMAKE_CUDA_COMPILER)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE nvcc_text)
    if(nvcc_text MATCHES "release ([0-9.]+)")
      set(nvcc_version ${CMAKE_MATCH_1})
    endif()
  endif()
  set(found_cuda OFF)
  if(nvcc_version VERSION_GREATER_EQUAL KVFATHOM_CUDA_MINIMUM)
    set(found_cuda ON)
  elseif(CMAKE_CUDA_COMPILER AND NOT KVFATHOM_CUDA)
    message(STATUS "CUDA ${nvcc_version} is older than ${KVFATHOM_CUDA_MINIMUM}: building for the CPU only")
  endif()
endif()
option(KVFATHOM_CUDA "Build the device code" ${found_cuda})

if(KVFATHOM_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES) # "native" fails on machines without a GPU
    set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100 120)
    if(nvcc_version VERSION_LESS 12.8) # knows no Blackwell
      set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90)
    endif()
  endif()
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS KVFATHOM_CUDA_MINIMUM)
    message(FATAL_ERROR "KVFATHOM_CUDA: ${CMAKE_CUDA_COMPILER} is version ${CMAKE_CUDA_COMPILER_VERSION}; "
      "C++20 needs at least ${KVFATHOM_CUDA_MINIMUM} (or configure with -DKVFATHOM_CUDA=OFF)")
  endif()
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION) # CMake 3.25 cannot spell it for nvcc
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  find_package(CUDAToolkit REQUIRED) # here, so that every folder sees its targets
endif()

# How kernels are compiled. A register spill or a stack frame is slow where nobody looks, so it is
# an error, like any other warning of the assembler (a test plants some).
set(KVFATHOM_CUDA_FLAGS --expt-relaxed-constexpr --expt-extended-lambda
  -Xptxas=--warn-on-spills,--warn-on-local-memory-usage,--warning-as-error)
