# Finds the CUTLASS headers; nothing is vendored. First match wins:
#   1. AMBER_CUTLASS_DIR: a CUTLASS checkout (from the command line or, when a build tree is made, the environment)
#   2. third_party/cutlass, if someone put a checkout there
#   3. the PyPI wheel nvidia-cutlass==4.2.0.0, which is the pin
# Sets AMBER_CUTLASS_INCLUDE_DIRS and AMBER_CUTLASS_TEXT ("4.2.0 (from ...)" or "not found").

set(AMBER_CUTLASS_PIN "4.2.0")
set(_candidates "")
set(AMBER_CUTLASS_DIR "$ENV{AMBER_CUTLASS_DIR}" CACHE PATH "a CUTLASS checkout")
if(AMBER_CUTLASS_DIR)
  list(APPEND _candidates "AMBER_CUTLASS_DIR|${AMBER_CUTLASS_DIR}")
endif()
list(APPEND _candidates "third_party/cutlass|${CMAKE_CURRENT_SOURCE_DIR}/third_party/cutlass")
# pip hides the environment's packages from an isolated build; its folder is known.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
    "import sys, sysconfig, importlib.util as u; sys.path.append(sysconfig.get_path('purelib')); s = u.find_spec('cutlass_library'); print(s.submodule_search_locations[0] + '/source' if s else '')"
  OUTPUT_VARIABLE _wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(_wheel)
  list(APPEND _candidates "nvidia-cutlass wheel|${_wheel}")
endif()

set(AMBER_CUTLASS_INCLUDE_DIRS "")
set(AMBER_CUTLASS_TEXT "not found")
foreach(_candidate IN LISTS _candidates)
  string(REGEX REPLACE "\\|.*" "" _from "${_candidate}")
  string(REGEX REPLACE "^[^|]*\\|" "" _dir "${_candidate}")
  if(EXISTS "${_dir}/include/cutlass/version.h")
    file(STRINGS "${_dir}/include/cutlass/version.h" _lines REGEX "#define CUTLASS_(MAJOR|MINOR|PATCH)")
    string(REGEX MATCHALL "[0-9]+" _numbers "${_lines}")
    list(JOIN _numbers "." _version)
    set(AMBER_CUTLASS_INCLUDE_DIRS "${_dir}/include" "${_dir}/tools/util/include")
    set(AMBER_CUTLASS_TEXT "${_version} (from ${_from})")
    if(NOT _version STREQUAL AMBER_CUTLASS_PIN)
      message(WARNING "CUTLASS ${_version} is not the tested version ${AMBER_CUTLASS_PIN}")
    endif()
    break()
  elseif(_from STREQUAL "AMBER_CUTLASS_DIR")
    message(FATAL_ERROR "AMBER_CUTLASS_DIR is '${_dir}', which has no include/cutlass/version.h; "
                        "it must be the root of a CUTLASS checkout")
  endif()
endforeach()
