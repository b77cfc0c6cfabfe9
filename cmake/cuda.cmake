# CUDA is used when it is there and never required. Found: on. Not found, or too old for C++20:
# off, with a message. Asked for and not found: an error, not a quiet CPU build.
#
# A configuration that says KVFATHOM_CUDA=OFF (the cpu, asan, tidy and headers presets) never
# looks for a compiler.
set(KVFATHOM_CUDA_MINIMUM 12.0)

if(NOT DEFINED KVFATHOM_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  set(found_cuda OFF)
  if(CMAKE_CUDA_COMPILER)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE nvcc_version)
    string(REGEX MATCH "release ([0-9.]+)" nvcc_version "${nvcc_version}")
    if(CMAKE_MATCH_1 VERSION_GREATER_EQUAL KVFATHOM_CUDA_MINIMUM)
      set(found_cuda ON)
    else()
      message(STATUS "CUDA ${CMAKE_MATCH_1} is older than ${KVFATHOM_CUDA_MINIMUM}: building for the CPU only")
    endif()
  endif()
endif()
option(KVFATHOM_CUDA "Build the device code" ${found_cuda})

if(KVFATHOM_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES) # "native" fails on machines without a GPU
    set(CMAKE_CUDA_ARCHITECTURES 80 90)
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
endif()
