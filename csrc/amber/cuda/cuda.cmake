# Decides whether CUDA kernels are built, and for what. The settings come from the command line or else, when a build
# tree is made, from the environment; the tree remembers them.
#   AMBER_CUDA            auto | 0 | 1: auto builds them where nvcc is found, 1 makes a missing nvcc an error
#   TORCH_CUDA_ARCH_LIST  architectures (architectures.cmake), by default those of AMBER_DEFAULT_ARCHITECTURES
#   AMBER_KERNELS         default | all: the sparse GEMMs that the heuristic chooses among, or also those for tuning
#   AMBER_EMBED_PTX       0 | 1: PTX beside the machine code of every kernel, for the emulator in tests/gpu_emulator
#   AMBER_STRICT          0 | 1: a kernel that would be slow (scripts/nvcc_checked.py) is an error, not a warning
# Sets AMBER_CUDA_DECISION, AMBER_CUDA_ARCH_TEXT, AMBER_WITH_CUDA and AMBER_CUDART_STATIC, the runtime to link
# (empty without CUDA); defines amber_add_cuda(target).

include(${CMAKE_CURRENT_LIST_DIR}/architectures.cmake)

foreach(_setting AMBER_CUDA TORCH_CUDA_ARCH_LIST AMBER_KERNELS AMBER_EMBED_PTX AMBER_STRICT)
  set(${_setting} "$ENV{${_setting}}" CACHE STRING "see csrc/amber/cuda/cuda.cmake")
endforeach()
if(AMBER_CUDA STREQUAL "")
  set(AMBER_CUDA auto)
endif()
if(NOT AMBER_CUDA MATCHES "^(auto|0|1)$")
  message(FATAL_ERROR "AMBER_CUDA is '${AMBER_CUDA}'; allowed: auto, 0, 1")
endif()

if(AMBER_KERNELS STREQUAL "")
  set(AMBER_KERNELS default)
endif()
if(NOT AMBER_KERNELS MATCHES "^(default|all)$")
  message(FATAL_ERROR "AMBER_KERNELS is '${AMBER_KERNELS}'; allowed: default, all")
endif()

set(AMBER_CUDA_ARCH_TEXT "none")
set(AMBER_WITH_CUDA OFF)
set(AMBER_CUDART_STATIC "")
# Only where the messages say: CMake would look in system folders too.
find_program(AMBER_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin
  NO_CMAKE_SYSTEM_PATH NO_CMAKE_PATH NO_CMAKE_ENVIRONMENT_PATH)

if(AMBER_CUDA STREQUAL "0")
  set(AMBER_CUDA_DECISION "off (AMBER_CUDA=0)")
elseif(NOT AMBER_NVCC)
  if(AMBER_CUDA STREQUAL "1")
    message(FATAL_ERROR "AMBER_CUDA=1 but nvcc was not found in CUDA_HOME, CUDA_PATH or PATH; "
                        "install the CUDA toolkit or set AMBER_CUDA=0")
  endif()
  set(AMBER_CUDA_DECISION "off (nvcc not found)")
elseif(NOT AMBER_CUTLASS_INCLUDE_DIRS)
  if(AMBER_CUDA STREQUAL "1")
    message(FATAL_ERROR "AMBER_CUDA=1 but the CUTLASS headers were not found; run "
                        "pip install --no-deps nvidia-cutlass==4.2.0.0, set AMBER_CUTLASS_DIR, or AMBER_CUDA=0")
  endif()
  set(AMBER_CUDA_DECISION "off (CUTLASS headers not found)")
else()
  set(CMAKE_CUDA_COMPILER "${AMBER_NVCC}")
  execute_process(COMMAND "${AMBER_NVCC}" --list-gpu-arch OUTPUT_VARIABLE _known COMMAND_ERROR_IS_FATAL ANY)
  amber_read_architectures(AMBER_ARCHITECTURES "${TORCH_CUDA_ARCH_LIST}" "${_known}")
  amber_family_architectures(CMAKE_CUDA_ARCHITECTURES selection "${AMBER_ARCHITECTURES}")
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # said where a program or library is linked
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  set(AMBER_WITH_CUDA ON)
  set(AMBER_CUDART_STATIC CUDA::cudart_static)
  set(AMBER_CUDA_DECISION "on (nvcc ${CMAKE_CUDA_COMPILER_VERSION}, ${AMBER_NVCC})")
  list(JOIN AMBER_ARCHITECTURES " " AMBER_CUDA_ARCH_TEXT)
endif()

# Adds the CUDA kernels to the library. Each family is compiled for its own architectures only: one
# SM90 sparse GEMM takes a minute or two.
function(amber_add_cuda target)
  set(sources "${CMAKE_CURRENT_SOURCE_DIR}/csrc/amber/cuda")
  set(kernels masked/prune.cu masked/quantize.cu compress/prune_compress.cu compress/quantize_compress.cu
    compress/sources/silu_mul_prune_compress.cu compress/sources/silu_mul_quantize_compress.cu)
  # The compiler's own report is checked: serialised wgmma, spills.
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${Python_EXECUTABLE};${CMAKE_CURRENT_SOURCE_DIR}/scripts/nvcc_checked.py")
  if(AMBER_STRICT)
    list(APPEND CMAKE_CUDA_COMPILER_LAUNCHER --strict)
  endif()

  list(TRANSFORM kernels PREPEND "${sources}/")
  amber_family_architectures(architectures selection "${AMBER_ARCHITECTURES}")
  amber_cuda_objects(amber_cuda_kernels "${architectures}" "${kernels}")
  amber_family_architectures(architectures sm100 "${AMBER_ARCHITECTURES}")
  if(architectures)
    target_compile_definitions(amber_cuda_kernels PRIVATE AMBER_WITH_SM100)  # its metadata has a layout of its own
  endif()
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:amber_cuda_kernels>)

  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${sources}/sparse_gemm/list.h")
  foreach(family sm80 sm89 sm90 sm100)
    amber_family_architectures(architectures ${family} "${AMBER_ARCHITECTURES}")
    if(family STREQUAL "sm89" AND CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.5)
      message(STATUS "amber_ext: e4m3 for 8.9 and 12.x is left out: it needs nvcc 12.5 or newer")
    elseif(architectures)
      amber_sparse_gemm_sources(gemms ${family} ${AMBER_KERNELS})
      amber_cuda_objects(amber_cuda_${family} "${architectures}" "${gemms}")
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:amber_cuda_${family}>)
      string(TOUPPER ${family} upper)
      target_compile_definitions(${target} PUBLIC AMBER_WITH_${upper})
    endif()
  endforeach()

  set_source_files_properties(${sources}/cuda_error.cpp PROPERTIES
    COMPILE_DEFINITIONS "AMBER_CUDA_ARCH_TEXT=\"${AMBER_CUDA_ARCH_TEXT}\"")
  target_sources(${target} PRIVATE ${sources}/cuda_error.cpp ${sources}/masked/prune_quantize.cpp
    ${sources}/linear/compressed_form.cpp ${sources}/linear/plan_sparse_linear.cpp ${sources}/linear/run_sparse_linear.cpp)
  target_include_directories(${target} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(${target} PUBLIC AMBER_WITH_CUDA $<$<STREQUAL:${AMBER_KERNELS},all>:AMBER_ALL_KERNELS>)
endfunction()

function(amber_cuda_objects name architectures sources)
  if(AMBER_EMBED_PTX)
    list(TRANSFORM architectures REPLACE "-(real|virtual)$" "")  # both; one run of the front end makes them
  endif()
  list(REMOVE_DUPLICATES architectures)
  add_library(${name} OBJECT ${sources})
  set(compression "")
  if(AMBER_EMBED_PTX)
    set(compression --no-compress)  # the emulator reads the PTX
  elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
    set(compression --compress-mode=size)  # every driver for CUDA 13 can read it, of those for CUDA 12 only newer ones
  endif()
  set_target_properties(${name} PROPERTIES CUDA_ARCHITECTURES "${architectures}")
  target_include_directories(${name} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/csrc")
  target_include_directories(${name} SYSTEM PRIVATE ${AMBER_CUTLASS_INCLUDE_DIRS})
  # Without NDEBUG an assert in CUTLASS' main loop makes ptxas serialise the wgmma instructions.
  target_compile_options(${name} PRIVATE -DNDEBUG -O3 --expt-relaxed-constexpr -Xptxas -v -Xcompiler=-Wno-psabi
    ${compression})
endfunction()
