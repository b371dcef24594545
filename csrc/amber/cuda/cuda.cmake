# Decides whether CUDA kernels are built, and for what. The settings come from the command line or else, when a build
# tree is made, from the environment; the tree remembers them.
#   AMBER_CUDA            auto | 0 | 1: auto builds them where nvcc is found, 1 makes a missing nvcc an error
#   TORCH_CUDA_ARCH_LIST  architectures, "8.0 9.0a" where it is empty
#   AMBER_EMBED_PTX       0 | 1: PTX beside the machine code of every kernel, for the emulator in tests/gpu_emulator
# Sets AMBER_CUDA_DECISION, AMBER_CUDA_ARCH_TEXT, AMBER_WITH_CUDA and AMBER_CUDART_STATIC, the runtime to link
# (empty without CUDA); defines amber_add_cuda(target).

foreach(_setting AMBER_CUDA TORCH_CUDA_ARCH_LIST AMBER_EMBED_PTX)
  set(${_setting} "$ENV{${_setting}}" CACHE STRING "see csrc/amber/cuda/cuda.cmake")
endforeach()
if(AMBER_CUDA STREQUAL "")
  set(AMBER_CUDA auto)
endif()
if(NOT AMBER_CUDA MATCHES "^(auto|0|1)$")
  message(FATAL_ERROR "AMBER_CUDA is '${AMBER_CUDA}'; allowed: auto, 0, 1")
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
  set(_archs "${TORCH_CUDA_ARCH_LIST}")
  if(_archs STREQUAL "")
    set(_archs "8.0 9.0a")
  endif()
  string(REGEX REPLACE "[ ,;]+" ";" _archs "${_archs}")
  set(CMAKE_CUDA_ARCHITECTURES "")
  foreach(_arch IN LISTS _archs)
    if(NOT _arch MATCHES "^([0-9]+)\\.([0-9][a-z]?)(\\+PTX)?$")
      message(FATAL_ERROR "TORCH_CUDA_ARCH_LIST has '${_arch}'; allowed: entries such as 8.0, 9.0a, 8.6+PTX")
    endif()
    set(_number "${CMAKE_MATCH_1}${CMAKE_MATCH_2}")
    list(APPEND CMAKE_CUDA_ARCHITECTURES "${_number}-real")
    if(CMAKE_MATCH_3)
      list(APPEND CMAKE_CUDA_ARCHITECTURES "${_number}-virtual")
    endif()
  endforeach()
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # said where a program or library is linked
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  set(AMBER_WITH_CUDA ON)
  set(AMBER_CUDART_STATIC CUDA::cudart_static)
  set(AMBER_CUDA_DECISION "on (nvcc ${CMAKE_CUDA_COMPILER_VERSION}, ${AMBER_NVCC})")
  list(JOIN _archs " " AMBER_CUDA_ARCH_TEXT)
endif()

# Adds the CUDA kernels to the library. Each family is compiled for its own architectures only: one
# SM90 sparse GEMM takes a minute or two.
function(amber_add_cuda target)
  set(sources "${CMAKE_CURRENT_SOURCE_DIR}/csrc/amber/cuda")
  set(kernels masked/prune.cu masked/quantize.cu compress/prune_compress.cu compress/quantize_compress.cu
    compress/sources/silu_mul_prune_compress.cu compress/sources/silu_mul_quantize_compress.cu)
  # The compiler's own report is checked: serialised wgmma or spills fail the build.
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${Python_EXECUTABLE};${CMAKE_CURRENT_SOURCE_DIR}/scripts/nvcc_checked.py")

  # PTX of the oldest one lets the selection kernels run on architectures that are newer than these.
  list(GET CMAKE_CUDA_ARCHITECTURES 0 oldest)
  string(REGEX REPLACE "-.*" "-virtual" oldest "${oldest}")
  list(TRANSFORM kernels PREPEND "${sources}/")
  amber_cuda_objects(amber_cuda_kernels "${CMAKE_CUDA_ARCHITECTURES};${oldest}" "${kernels}")
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:amber_cuda_kernels>)

  foreach(family sm80 sm90)
    set(pattern "^8[0-9]")
    if(family STREQUAL sm90)
      set(pattern "^90a")
    endif()
    set(architectures ${CMAKE_CUDA_ARCHITECTURES})
    list(FILTER architectures INCLUDE REGEX "${pattern}")
    if(architectures)
      file(GLOB_RECURSE gemms CONFIGURE_DEPENDS "${sources}/sparse_gemm/${family}/*.cu")
      amber_cuda_objects(amber_cuda_${family} "${architectures}" "${gemms}")
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:amber_cuda_${family}>)
      string(TOUPPER ${family} upper)
      target_compile_definitions(${target} PUBLIC AMBER_WITH_${upper})
    endif()
  endforeach()

  target_sources(${target} PRIVATE ${sources}/linear/compressed_form.cpp ${sources}/linear/plan_sparse_linear.cpp
    ${sources}/linear/run_sparse_linear.cpp ${sources}/masked/prune_quantize.cpp)
  target_include_directories(${target} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(${target} PUBLIC AMBER_WITH_CUDA)
endfunction()

function(amber_cuda_objects name architectures sources)
  if(AMBER_EMBED_PTX)
    list(TRANSFORM architectures REPLACE "-(real|virtual)$" "")  # both; one run of the front end makes them
  endif()
  list(REMOVE_DUPLICATES architectures)
  add_library(${name} OBJECT ${sources})
  set_target_properties(${name} PROPERTIES CUDA_ARCHITECTURES "${architectures}")
  target_include_directories(${name} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/csrc")
  target_include_directories(${name} SYSTEM PRIVATE ${AMBER_CUTLASS_INCLUDE_DIRS})
  # Without NDEBUG an assert in CUTLASS' main loop makes ptxas serialise the wgmma instructions.
  target_compile_options(${name} PRIVATE -DNDEBUG -O3 --expt-relaxed-constexpr -Xptxas -v -Xcompiler=-Wno-psabi
    $<$<BOOL:${AMBER_EMBED_PTX}>:--no-compress>)
endfunction()
